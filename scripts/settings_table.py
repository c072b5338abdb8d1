"""Write the tables of docs/settings.md from the declarations of the settings, one for each need.

.venv/bin/python scripts/settings_table.py
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import Field
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

sys.path.insert(0, str(ROOT))

from handlers.kinds import Kind  # noqa: E402 - found by the line above
from settings import ServerSettings, Settings  # noqa: E402
from tests.support.document import with_table  # noqa: E402

DOCUMENT = ROOT / "docs" / "settings.md"

# The settings of each table, by the names of their fields.
GROUPS = {
    "Which objects are served": "s3_image_bucket s3_image_key s3_objects",
    "The store": """s3_region s3_endpoint_url s3_addressing_style s3_tls_verify s3_unsigned
        s3_requester_pays s3_direct aws_access_key_id aws_secret_access_key aws_session_token""",
    "What the client gets": """delivery redirect_lifetime image_cache_control s3_metadata_headers
        cors_origins verify_checksums""",
    "The bytes route": "bytes_url bytes_max_size",
    "Who may download": """access_tokens url_signing_keys url_max_lifetime auth_url
        auth_cache_seconds metrics_tokens""",
    "Slow or broken upstreams": """first_byte_timeout upstream_connect_timeout
        upstream_read_timeout max_resumes""",
    "Slow or many clients": """max_downloads max_downloads_per_client queue_timeout
        client_stall_timeout client_min_rate""",
    "Speed": "read_ahead_connections read_ahead_bytes",
    "The process": """env_file host port web_concurrency shutdown_grace forwarded_allow_ips
        keep_alive_timeout log_level log_format metrics_directory""",
}


class Documented(NamedTuple):
    """A setting, with the docstring below its declaration."""

    field: Field[Any]
    names: list[str]
    meaning: str
    default: str


def documented_settings() -> Iterator[Documented]:
    """Yield all settings, in their order."""
    docstrings = field_docstrings(Settings) | field_docstrings(ServerSettings)
    for one, _, names in ServerSettings.declared():
        meaning, _, told = docstrings[one.name].partition(" Default: ")
        yield Documented(one, names, meaning, told.removesuffix(".") or _default(one.default))


@cache
def field_docstrings(settings: type[Settings]) -> dict[str, str]:
    """Return the docstring below each field of a class, in one line."""
    [declared] = ast.parse(dedent(inspect.getsource(settings))).body
    assert isinstance(declared, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(declared.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def _default(default: object) -> str:
    if default is None or default == ():
        return "none"
    text = f"{default:.15g}" if isinstance(default, float) else str(default)
    return f"`{text.lower() if isinstance(default, bool) else text}`"


def settings_tables(groups: Mapping[str, str] = GROUPS) -> str:
    """Return the tables in Markdown, each below its heading, with a row for each setting.

    Raises ValueError if a setting is in none of the `groups`, or in two.
    """
    rows = {one.field.name: settings_row(one, kind) for one, kind in _documented_kinds()}
    grouped = [name for names in groups.values() for name in names.split()]
    if wrong := {*grouped} ^ {*rows} or {name for name in grouped if grouped.count(name) > 1}:
        raise ValueError(f"the groups must have each setting once: {sorted(wrong)}")
    head = "| variable | in code | default | meaning |\n|---|---|---|---|"
    return "\n\n".join(
        "\n".join([f"## {group}", "", head, *(rows[name] for name in names.split())])
        for group, names in groups.items()
    )


def settings_row(one: Documented, kind: Kind) -> str:
    """Return the row of a setting: all its variables, and the values that it accepts."""
    name, *others = (f"`{name}`" for name in one.names)
    in_code = f"`{one.field.name}`" if one.field.name in field_docstrings(Settings) else "-"
    meaning = [one.meaning, accepted_values(kind)]
    if others:
        meaning.append(f"Fallback: {', then '.join(others)}.")
    return f"| {name} | {in_code} | {one.default} | {' '.join(filter(None, meaning))} |"


def accepted_values(kind: Kind) -> str:
    """Return the sentence of the error for a wrong value, with the example, if there is one."""
    example = f"For example `{kind.example}`." if kind.example else ""
    try:
        kind.check(object())
    except ValueError as error:
        text = re.sub(r"[0-9.]+e[+][0-9]+", lambda found: f"{float(found[0]):.0f}", str(error))
        if "tuple" not in text:  # That is about code; the docstring describes the variable.
            return f"{text[0].upper()}{text[1:]}. {example}".strip()
    return example


def _documented_kinds() -> Iterator[tuple[Documented, Kind]]:
    kinds = {one.name: kind for one, kind, _ in ServerSettings.declared()}
    for documented in documented_settings():
        yield documented, kinds[documented.field.name]


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT, "settings", settings_tables()), encoding="utf-8")
