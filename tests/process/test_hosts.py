"""The example hosts, on every server."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.components import Store
from tests.support.document import with_table
from tests.support.misbehaving import misbehaving
from tools.hosts.__main__ import README, table
from tools.hosts.cases import Combination, combinations, fill
from tools.hosts.running import EXAMPLES, HOSTS, Running, running


@pytest.fixture(scope="module")
def running_host(
    request: pytest.FixtureRequest, installed: Path, store: Store
) -> Generator[Running]:
    """Run one of the examples in its own process for all of its cases."""
    with suppress(store.client.exceptions.BucketAlreadyOwnedByYou):
        fill(store)
    # Not the fixture `_misbehaving`: other services may keep idle connections to that one, and
    # the cases wait until no connection is open.
    with misbehaving() as between, running(request.param, installed, store, between) as one:
        yield one


@pytest.mark.parametrize(
    ("running_host", "combination"),
    [pytest.param(one.process, one, id=", ".join(one)) for one in combinations()],
    indirect=["running_host"],
    scope="module",
)
def test_example_host_passes_the_case(running_host: Running, combination: Combination) -> None:
    """Each example host passes each case on each server."""
    running_host.forget()
    combination.case(running_host)


def test_hosts_table_in_readme_lists_every_case() -> None:
    """The examples' README lists every case with its hosts and servers."""
    made = table(dict.fromkeys(combinations(), True))
    assert with_table(README, "hosts", made) == README.read_text()


def test_example_host_is_tested_and_in_readme() -> None:
    """Every example host is tested, and the README links to it."""
    files = sorted(EXAMPLES.rglob("*_host.py"))
    assert files == sorted(EXAMPLES / f"{host}_host.py" for host in HOSTS)
    text = README.read_text()
    for host in HOSTS:
        assert f"[`{host}_host.py`]({host}_host.py)" in text


def test_example_has_fewer_than_90_lines() -> None:
    """Every example has fewer than 90 lines."""
    for path in EXAMPLES.rglob("*.py"):
        assert len(path.read_text().splitlines()) < 90, path.name
