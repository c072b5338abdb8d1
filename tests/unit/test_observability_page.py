"""docs/observability.md has every outcome, log field and metric of the code, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

import pytest

from handlers.errors import Broken
from handlers.telemetry.metrics import Metrics
from handlers.telemetry.record import INFO_OUTCOMES, Outcome, Record
from tests.support.document import rows_between
from tests.support.markdown import first_cells, pages
from tests.support.serving import ROOT

OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")

OUTCOMES = {*get_args(Broken), *(text for one in get_args(Outcome) for text in get_args(one))}
FIELDS = set(
    Record(
        metrics=Metrics(), method="GET", path="/", route="/", source="s3", request_id="1"
    )._fields()
)


def collectors() -> Iterable[tuple[Any, str]]:
    """Yield each metric, and its name in the text of /metrics."""
    for collector in Metrics()._registry._collector_to_names:
        name, kind = collector._name, collector._type  # type: ignore[attr-defined]
        yield collector, f"{name}_total" if kind == "counter" else name


METRICS = {name for _, name in collectors()}

# The page, the name of its table, and what the table must have.
TABLES = [
    (OBSERVABILITY, "outcomes", OUTCOMES),
    (TROUBLESHOOTING, "outcomes", OUTCOMES),
    (OBSERVABILITY, "fields", FIELDS),
    (OBSERVABILITY, "metrics", METRICS),
]
IDS = ["outcomes", "outcomes to troubleshoot", "fields", "metrics"]


def differences(text: str, name: str, expected: set[str]) -> set[str]:
    """Return what the table lacks, has twice, or has beyond the code."""
    cells = first_cells(text, name)
    return (set(cells) ^ expected) | {cell for cell in cells if cells.count(cell) > 1}


@pytest.mark.parametrize(("text", "name", "expected"), TABLES, ids=IDS)
def test_table_has_exactly_the_names_of_the_code(text: str, name: str, expected: set[str]) -> None:
    """The table has each name once, and no other."""
    assert len(expected) >= 8
    assert not differences(text, name, expected)


@pytest.mark.parametrize(("text", "name", "expected"), TABLES, ids=IDS)
def test_missing_extra_or_repeated_row_is_a_difference(
    text: str, name: str, expected: set[str]
) -> None:
    """A table without a row, with another row, or with a row twice is noticed."""
    first = first_cells(text, name)[0]
    row = next(line for line in text.splitlines() if line.startswith(f"| `{first}` |"))
    assert differences(text.replace(f"{row}\n", ""), name, expected) == {first}
    assert differences(text.replace(row, f"{row}\n{row}"), name, expected) == {first}
    more = row.replace(first, "unknown")
    assert differences(text.replace(row, f"{row}\n{more}"), name, expected) == {"unknown"}


def test_metrics_in_all_pages_exist() -> None:
    """Each metric that a page names exists."""
    text = "".join(page.text for page in pages())
    named = set(re.findall(r"\bdownspout_\w+", text))
    assert named == METRICS


def test_outcomes_have_their_log_level() -> None:
    """The table of outcomes has the level of each log line."""
    for outcome, _, level in rows_between(OBSERVABILITY, "outcomes"):
        assert level == ("info" if outcome.strip("`") in INFO_OUTCOMES else "warning")


def test_metrics_have_their_type_and_labels() -> None:
    """The table of metrics has the type and the labels of each metric."""
    rows = {name.strip("`"): row for name, *row in rows_between(OBSERVABILITY, "metrics")}
    for collector, name in collectors():
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)
        assert rows[name][:2] == [collector._type, labels]
