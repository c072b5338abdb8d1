"""Writes the README's table of settings from ``settings.py``; a test keeps the two equal.

.venv/bin/python scripts/settings_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

sys.path.insert(0, str(ROOT))

from settings import Settings, variable_of, variables  # noqa: E402 - found by the line above
from tests.support.document import with_table  # noqa: E402


def settings_table() -> str:
    """Return the table in Markdown, a row for each setting."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in variables():
        how = variable_of(setting)
        names = ", then ".join(f"`{name}`" for name in how.names)
        rows.append(f"| {names} | {_default_of(setting.name)} | {how.meaning} |")
    return "\n".join(rows)


def _default_of(name: str) -> str:
    setting = Settings.__dataclass_fields__[name]
    default, told = setting.default, variable_of(setting).default_text
    if told or default is None:
        return told or "none"
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"`{text.lower() if default is True else text}`"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme, "settings", settings_table()), encoding="utf-8")
