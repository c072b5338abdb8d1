"""Faults of the upstream and their expected outcomes."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future

import pytest

from tools.faults.bench import BOTOCORE, DOWNSPOUT, over_tls
from tools.faults.faults import FAULTS
from tools.faults.outcomes import Case, cases, judging

CASES = cases(FAULTS)
SUBJECTS = [DOWNSPOUT, BOTOCORE, over_tls(DOWNSPOUT)]


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda subject: subject.name)
def outcomes(request: pytest.FixtureRequest) -> Generator[dict[Case, Future[str]]]:
    """Run the faults that are selected in this session, eight at a time."""
    items = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [item.params["case"] for item in items if item and "case" in item.params]
    with judging(request.param, [case for case in CASES if case in chosen]) as futures:
        yield futures


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}, {case[1]}")
def test_fault_has_its_expected_outcome(outcomes: dict[Case, Future[str]], case: Case) -> None:
    """Each fault has its expected outcome, and no connection or slot stays in use."""
    fault, source = case
    assert outcomes[case].result() == fault.outcome_of(source)
