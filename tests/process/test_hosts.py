"""Every example holds what downspout promises, under every server."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.components import Store
from tests.support.document import with_table
from tests.support.misbehaving import Misbehaving
from tools.hosts.__main__ import README, table
from tools.hosts.cases import Combination, combinations, fill
from tools.hosts.running import EXAMPLES, HOSTS, Running, running


@pytest.fixture(scope="module")
def running_host(
    request: pytest.FixtureRequest, installed: Path, store: Store, _misbehaving: Misbehaving
) -> Generator[Running]:
    """One of the examples in a process of its own, for all of its cases."""
    with suppress(store.client.exceptions.BucketAlreadyOwnedByYou):
        fill(store)
    with running(request.param, installed, store, _misbehaving) as one:
        yield one


@pytest.mark.parametrize(
    ("running_host", "combination"),
    [pytest.param(one.process, one, id=", ".join(one)) for one in combinations()],
    indirect=["running_host"],
    scope="module",
)
def test_host(running_host: Running, combination: Combination) -> None:
    """What holds of downspout by itself holds in every host, on every server."""
    running_host.forget()
    combination.case(running_host)


def test_table_is_that_of_the_cases() -> None:
    """The examples' README has every case, with the hosts and servers for which it is tested."""
    made = table(dict.fromkeys(combinations(), True))
    assert with_table(README, "hosts", made) == README.read_text()


def test_every_example_is_tried_and_told_of() -> None:
    """An example that is not tried would be one that nobody knows to work."""
    assert sorted(EXAMPLES.rglob("*.py")) == sorted(EXAMPLES / f"{host}_host.py" for host in HOSTS)
    text = README.read_text()
    for host in HOSTS:
        assert f"[`{host}_host.py`]({host}_host.py)" in text


def test_examples_are_short() -> None:
    """An example is a file that somebody reads and copies."""
    for path in EXAMPLES.rglob("*.py"):
        assert len(path.read_text().splitlines()) < 90, path.name
