"""Generated tables inside Markdown documents, between `begin` and `end` marks with a name."""

import sys
from pathlib import Path


def with_table(document: Path, name: str, table: str) -> str:
    """Return the text of a document with another table between the marks of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = document.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{table}\n{end}{after}"


def table_rows(document: Path, name: str) -> list[list[str]]:
    """Return the cells of the table between the marks of that name, without its heading."""
    return rows_between(document.read_text(encoding="utf-8"), name)


def rows_between(text: str, name: str) -> list[list[str]]:
    """Return the cells of the table between the marks of that name in `text`."""
    table = text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


def say(text: str) -> None:
    """Print to standard error, so that standard output has the table alone."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
