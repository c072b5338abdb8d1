"""Faults on purpose: no client is ever left with less than it was told, nor anything held."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future

import pytest

from tools.faults.bench import DOWNSPOUT
from tools.faults.faults import FAULTS
from tools.faults.outcomes import Case, cases, judging

CASES = cases(FAULTS)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Generator[dict[Case, Future[str]]]:
    """The outcomes of the faults that this run is about, judged some at a time."""
    items = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [item.params["case"] for item in items if item and "case" in item.params]
    with judging(DOWNSPOUT, [case for case in CASES if case in chosen]) as futures:
        yield futures


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}, {case[1]}")
def test_fault_has_the_outcome_that_it_should(
    outcomes: dict[Case, Future[str]], case: Case
) -> None:
    """What a client gets in a fault is what the service owes it, and nothing stays behind."""
    fault, source = case
    assert outcomes[case].result() == fault.outcome_of(source)
