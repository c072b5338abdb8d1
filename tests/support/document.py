"""Tables that a script makes, in documents that people read."""

from __future__ import annotations

import sys
from pathlib import Path


def with_table(document: Path, name: str, table: str) -> str:
    """Return a document with the table between its marks of that name replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = document.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{table}\n{end}{after}"


def say(text: str) -> None:
    """Say what is no part of the table."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
