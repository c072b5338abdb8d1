"""Faults of the upstream and their expected outcomes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

from tools.faults.bench import BOTOCORE, DOWNSPOUT, Subject, over_tls
from tools.faults.faults import FAULTS
from tools.faults.outcomes import Case, cases, judging

Outcomes = dict[Case, Future[str]]
OutcomesOf = Callable[[str], Outcomes]

CASES = cases(FAULTS)
OVER_TLS = over_tls(DOWNSPOUT)
SUBJECTS = {subject.name: subject for subject in (DOWNSPOUT, BOTOCORE, OVER_TLS)}


def is_tried(subject: Subject, case: Case) -> bool:
    """Return whether no other subject runs the same case on the same code."""
    fault, source = case
    if subject == DOWNSPOUT:
        return not fault.needs_tls  # `judge` would run it with OVER_TLS.
    # S3_DIRECT=false changes only the requests to the store.
    return subject != BOTOCORE or source == "s3"


TRIED = [
    pytest.param(name, case, id=f"{name}-{case[0].name}, {case[1]}")
    for name, subject in SUBJECTS.items()
    for case in CASES
    if is_tried(subject, case)
]


@pytest.fixture(scope="module")
def outcomes_of(request: pytest.FixtureRequest) -> Generator[OutcomesOf]:
    """Return a function that returns the outcomes of a subject, by its name.

    The first call for a subject ends the processes of the subject before, and runs the faults
    that are selected in this session, eight at a time.
    """
    items = [getattr(item, "callspec", None) for item in request.session.items]
    pairs = [(item.params.get("name"), item.params.get("case")) for item in items if item]
    outcomes: dict[str, Outcomes] = {}
    with ExitStack() as running:

        def get(name: str) -> Outcomes:
            if name not in outcomes:
                running.close()
                chosen = [case for case in CASES if (name, case) in pairs]
                outcomes[name] = running.enter_context(judging(SUBJECTS[name], chosen))
            return outcomes[name]

        yield get


@pytest.mark.parametrize(("name", "case"), TRIED)
def test_fault_has_its_expected_outcome(outcomes_of: OutcomesOf, name: str, case: Case) -> None:
    """Each fault has its expected outcome, and no connection or slot stays in use."""
    fault, source = case
    assert outcomes_of(name)[case].result() == fault.outcome_of(source)
