"""Writes the README's table of settings from their declarations; a test keeps the two equal.

.venv/bin/python scripts/settings_table.py
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import Field
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

sys.path.insert(0, str(ROOT))

from settings import ServerSettings, Settings  # noqa: E402 - found by the line above
from tests.support.document import with_table  # noqa: E402


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


def settings_table() -> str:
    """Return the table in Markdown, a row for each setting."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for one in documented_settings():
        names = ", then ".join(f"`{name}`" for name in one.names)
        rows.append(f"| {names} | {one.default} | {one.meaning} |")
    return "\n".join(rows)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme, "settings", settings_table()), encoding="utf-8")
