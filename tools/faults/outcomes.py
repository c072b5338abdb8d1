"""Run many faults, some at a time, and collect their outcomes."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

from .bench import Benches, Subject
from .faults import SOURCES, Fault
from .judge import judge

Case = tuple[Fault, str]
"""A fault, and the source that it is tried with."""


def cases(faults: Iterable[Fault]) -> list[Case]:
    """Return each fault with each source that it applies to."""
    return [(fault, source) for fault in faults for source in SOURCES if fault.outcome_of(source)]


@contextmanager
def judging(subject: Subject, chosen: list[Case]) -> Generator[dict[Case, Future[str]]]:
    """Yield the futures of the outcomes; at the end, cases that have not begun are cancelled."""
    with closing(Benches()) as benches, ThreadPoolExecutor(subject.at_once) as pool:
        # Start the last ones first: they take longest.
        futures = {case: pool.submit(judge, benches, subject, *case) for case in chosen[::-1]}
        try:
            yield futures
        finally:
            pool.shutdown(cancel_futures=True)


def is_honest(outcome: str) -> bool:
    """Return whether an outcome does no harm."""
    return "**" not in outcome
