"""The outcomes of many faults, judged some at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

from .bench import Benches, Subject
from .faults import SOURCES, Fault
from .judge import judge

Case = tuple[Fault, str]
"""A fault of one of the sources."""


def cases(faults: Iterable[Fault]) -> list[Case]:
    """Return the faults of each source."""
    return [(fault, source) for fault in faults for source in SOURCES if fault.outcome_of(source)]


@contextmanager
def judging(subject: Subject, chosen: list[Case]) -> Generator[dict[Case, Future[str]]]:
    """Yield the outcomes to come; those that nobody waited for are not judged any more."""
    with closing(Benches()) as benches, ThreadPoolExecutor(subject.at_once) as pool:
        # The last ones are those that take longest.
        futures = {case: pool.submit(judge, benches, subject, *case) for case in chosen[::-1]}
        try:
            yield futures
        finally:
            pool.shutdown(cancel_futures=True)


def is_honest(outcome: str) -> bool:
    """Return whether an outcome is none that a client could be harmed by."""
    return "**" not in outcome
