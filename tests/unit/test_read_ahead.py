"""Reading ahead: the same bytes, in order, from several connections at once."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from handlers.body import read_ahead as read_ahead_module
from handlers.body.concurrency import TRIES, ConcurrencyController, Window
from handlers.body.read_ahead import Ahead, Budget, read_ahead
from handlers.body.upstream import Chunk, Upstream
from handlers.errors import BrokenTransfer, DownloadError, UpstreamBusy
from handlers.rfc9110.ranges import Part

KIB, MIB = 1024, 1024 * 1024
SIZE = 1_000_003
BODY = random.Random(5).randbytes(SIZE)


@pytest.fixture(autouse=True)
def _small_and_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a size for tests; each chunk ends a window, and the pilot grows as it may."""
    monkeypatch.setattr(read_ahead_module, "READ_AHEAD_MIN", 100 * KIB)
    monkeypatch.setattr(read_ahead_module, "LEAST_PIECE", 10 * KIB)
    monkeypatch.setattr(read_ahead_module, "LARGEST_PIECE", 80 * KIB)
    monkeypatch.setattr(read_ahead_module, "WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(ConcurrencyController, "update", grow)


def grow(controller: ConcurrencyController, seen: Window) -> None:
    controller.width = min(controller.width + 1, controller._most)


def stay(controller: ConcurrencyController, seen: Window) -> None:
    pass


@dataclass(eq=False)
class Connection:
    """One that gives bytes when it is told to."""

    part: Part
    chunk: int
    position: int
    fails_at: int | None = None
    is_open: bool = True
    pauses: int = 1
    """The stream that is open first has more, so that pieces have begun before it is there."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> Chunk:
        await self.gate.wait()
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        if self.fails_at is not None and self.position >= self.fails_at:
            raise BrokenTransfer("upstream_timeout", "as the test says")
        end = min(self.position + self.chunk, self.part.last + 1)
        if self.fails_at is not None:
            end = min(end, self.fails_at)
        data = BODY[self.position : end]
        self.position = end
        return data if end % 2 else memoryview(data)

    def close(self) -> None:
        self.is_open = False


class Store:
    """Opens parts, and remembers what was asked for."""

    def __init__(self, *, first: int = 0, last: int = SIZE - 1, total: int = 8 * MIB) -> None:
        self.first, self.last = first, last
        self.budget = Budget(total)
        self.total = total
        self.connections: list[Connection] = []
        self.chunk = 7_001
        self.most = self.least_left = 0
        self.is_gated = False
        self.refusals: dict[int, DownloadError] = {}
        self.failures: list[int] = []
        self.spoil: Callable[[Connection], None] = lambda _: None

    def connect(self, part: Part) -> Connection:
        fails_at = next((at for at in self.failures if part.first <= at <= part.last), None)
        connection = Connection(part, self.chunk, part.first, fails_at)
        if not self.is_gated:
            connection.gate.set()
        self.connections.append(connection)
        self.spoil(connection)
        self.most = max(self.most, len(self.open_ones))
        return connection

    @property
    def open_ones(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.is_open]

    @property
    def parts(self) -> list[Part]:
        return [connection.part for connection in self.connections]

    async def open_part(self, part: Part, stack: ExitStack) -> Upstream:
        assert self.first <= part.first <= part.last <= self.last
        await asyncio.sleep(0)
        refusal = next((e for at, e in self.refusals.items() if part.first >= at), None)
        if refusal:
            raise refusal
        connection = self.connect(part)
        stack.callback(connection.close)
        return Upstream(
            headers={}, length=part.length, close=connection.close, read=connection.read
        )

    def upstream(self, width: int = 4, lag: Callable[[], int] = lambda: 0) -> Upstream:
        first = self.connect(Part(self.first, self.last))
        first.gate.set()
        first.pauses = 20
        plain = Upstream(headers={}, length=first.part.length, close=first.close, read=first.read)
        return read_ahead(
            plain,
            last=self.last,
            position=self.first,
            open_part=self.open_part,
            ahead=Ahead(self.budget, width, lag),
        )

    @asynccontextmanager
    async def opened(
        self, width: int = 4, lag: Callable[[], int] = lambda: 0
    ) -> AsyncIterator[Upstream]:
        """Give it ahead; whatever happens, nothing is left of it."""
        before = asyncio.all_tasks()
        upstream = self.upstream(width, lag)
        try:
            yield upstream
        finally:
            upstream.close()
            upstream.close()
            assert not self.open_ones
            assert self.budget.left == self.total
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() <= before


async def chunk_of(upstream: Upstream) -> bytes:
    assert upstream.read is not None
    return bytes(await upstream.read())


async def all_of(upstream: Upstream) -> bytes:
    body = bytearray()
    while chunk := await chunk_of(upstream):
        body += chunk
    assert await chunk_of(upstream) == b""
    return bytes(body)


def lose_patience(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time be over now in which a client has to take something."""
    monkeypatch.setattr(read_ahead_module, "CLIENT_STALL_SECONDS", 0)
    assert upstream.read is not None
    reading = upstream.read.__self__  # type: ignore[attr-defined]
    reading.timer.cancel()
    reading._watch()
    monkeypatch.setattr(read_ahead_module, "CLIENT_STALL_SECONDS", 60)


async def until(is_so: Callable[[], object]) -> None:
    for _ in range(10_000):
        if is_so():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never was so")


async def until_broken(upstream: Upstream) -> tuple[bytes, BrokenTransfer]:
    body = bytearray()
    try:
        while chunk := await chunk_of(upstream):
            body += chunk
    except BrokenTransfer as broken:
        return bytes(body), broken
    pytest.fail("it is whole")


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("chunk", [1_000, 7_001, 64 * KIB, 2 * MIB])
async def test_bytes_are_those_of_the_object(width: int, chunk: int) -> None:
    """Whatever the chunks, all bytes come once and in order, over so many connections at most."""
    store = Store()
    store.chunk = chunk
    async with store.opened(width) as upstream:
        assert await all_of(upstream) == BODY
    assert store.most <= width
    if chunk < 10 * KIB:
        assert store.most == width


async def test_parts_are_contiguous_and_within() -> None:
    """Behind the stream that was open, each byte is asked for once."""
    store = Store(first=12_345, last=SIZE - 4_321)
    async with store.opened() as upstream:
        assert await all_of(upstream) == BODY[12_345 : SIZE - 4_320]
    parts = store.parts[1:]
    assert all(a.last + 1 == b.first for a, b in pairwise(parts))
    assert parts[-1].last == SIZE - 4_321
    assert all(part.length >= read_ahead_module.LEAST_PIECE for part in parts)


async def test_order_of_arrival_is_of_no_matter() -> None:
    """A piece that is there before its turn waits for those before it."""
    store = Store()
    store.is_gated = True
    rng = random.Random(3)

    async def open_gates() -> None:
        while True:
            closed = [c for c in store.open_ones if not c.gate.is_set()]
            if closed:
                rng.choice(closed).gate.set()
            await asyncio.sleep(0.0005)

    gates = asyncio.create_task(open_gates())
    async with store.opened() as upstream:
        assert await all_of(upstream) == BODY
        gates.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(32))
async def test_random_behaviour(seed: int) -> None:
    """Whatever connections, client and pilot do, what comes is a beginning of the object."""
    rng = random.Random(seed)
    store = Store(total=rng.choice([100 * KIB, 8 * MIB]))
    store.chunk = rng.choice([999, 30_000])
    store.failures = [rng.randrange(SIZE) for _ in range(rng.choice([0, 0, 1, 2]))]
    is_refused = rng.random() < 0.3

    async def refuse() -> None:
        while is_refused:
            store.refusals = {0: UpstreamBusy("busy")} if rng.random() < 0.5 else {}
            await asyncio.sleep(0.001)

    def judge(controller: ConcurrencyController, seen: Window) -> None:
        controller.width = min(
            max(controller.width + rng.choice([-1, 0, 1, 1]), 1), controller._most
        )

    refusing = asyncio.create_task(refuse())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConcurrencyController, "update", judge)
        async with store.opened(rng.choice([2, 5])) as upstream:
            body = bytearray()
            try:
                while chunk := await chunk_of(upstream):
                    body += chunk
                    if rng.random() < 0.1:
                        await asyncio.sleep(0.0001)
                assert len(body) == SIZE
            except BrokenTransfer:
                assert store.failures or is_refused
            assert BODY.startswith(body)
            refusing.cancel()
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("size", "width", "is_ahead"),
    [(100 * KIB, 2, True), (100 * KIB - 1, 2, False), (SIZE, 1, False), (SIZE, 0, False)],
)
async def test_off_where_it_can_not_pay(size: int, width: int, is_ahead: bool) -> None:
    """What is short, or may have one connection alone, is left as it is."""
    store = Store(last=size - 1)
    upstream = store.upstream(width)
    assert (upstream.read != store.connections[0].read) is is_ahead
    assert await all_of(upstream) == BODY[:size]
    upstream.close()


async def test_without_a_body_it_is_left_alone() -> None:
    """An answer to HEAD has nothing to read."""
    store = Store()
    head = Upstream(headers={}, length=SIZE)
    ahead, open_part = Ahead(store.budget, 4), store.open_part
    same = read_ahead(head, last=SIZE - 1, position=0, open_part=open_part, ahead=ahead)
    assert same is head


async def test_body_that_is_limited_elsewhere_is_one_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the pilot does not grow, nothing is asked for."""
    monkeypatch.setattr(ConcurrencyController, "update", stay)
    store = Store()
    async with store.opened() as upstream:
        assert await all_of(upstream) == BODY
    assert len(store.connections) == 1


async def test_too_many_bytes_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is read beyond its end: whether it ends there, its reader checks."""
    monkeypatch.setattr(ConcurrencyController, "update", stay)
    store = Store(last=SIZE - 10)
    async with store.opened() as upstream:
        store.connections[0].part = Part(0, SIZE - 1)
        assert await all_of(upstream) == BODY


# The budget


def test_nobody_takes_more_than_half_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much one takes there is something left, and never less than nothing."""
    monkeypatch.setattr(read_ahead_module, "LEAST_PIECE", 10)
    budget = Budget(100)
    assert [budget.take(80), budget.take(10), budget.take(80), budget.take(80)] == [50, 10, 20, 10]
    assert budget.take(80) == 0
    budget.give(50)
    assert budget.take(80) == 30


async def test_downloads_share_the_budget() -> None:
    """Together they hold no more than it has, and each gets on."""
    store = Store(total=200 * KIB)
    least = store.total

    def look(_: Connection) -> None:
        nonlocal least
        least = min(least, store.budget.left)

    store.spoil = look
    bodies = [store.upstream(8) for _ in range(5)]
    assert await asyncio.gather(*map(all_of, bodies)) == [BODY] * 5
    for body in bodies:
        body.close()
    assert 0 <= least < store.total
    assert store.budget.left == store.total


async def test_spent_budget_is_not_waited_for() -> None:
    """Without it a body is one plain stream."""
    store = Store(total=5 * KIB)
    async with store.opened() as upstream:
        assert await all_of(upstream) == BODY
    assert len(store.connections) == 1


# What breaks


async def test_broken_piece_is_delivered_up_to_its_break() -> None:
    """Then its own failure is raised, at exactly that byte; nothing behind it is asked for."""
    store = Store()
    store.failures = [700_000]
    store.spoil = lambda c: setattr(c, "fails_at", None) if c.part.first == 0 else None
    async with store.opened() as upstream:
        body, broken = await until_broken(upstream)
    assert body == BODY[:700_000]
    assert broken.outcome == "upstream_timeout"


@pytest.mark.parametrize("by", [-1, 1])
async def test_piece_of_another_length_breaks(by: int) -> None:
    """A byte too few or too many is a break; one too many is the object's next, and no part's."""
    store = Store()
    ends: list[int] = []

    def spoil(connection: Connection) -> None:
        if connection.part.first > 500_000:
            ends.append(connection.part.last + 1)
            connection.part = Part(connection.part.first, connection.part.last + by)

    store.spoil = spoil
    async with store.opened() as upstream:
        body, broken = await until_broken(upstream)
    assert BODY.startswith(body)
    assert 500_000 < len(body) <= min(ends)
    assert broken.outcome == "truncated"


async def test_failure_that_is_nobodys_breaks_too() -> None:
    """Nothing that goes wrong in a piece leaves its reader waiting."""
    store = Store()

    def spoil(connection: Connection) -> None:
        if connection.part.first > 500_000:
            connection.read = broken_read  # type: ignore[method-assign]

    async def broken_read() -> bytes:
        raise ValueError("a bug")

    store.spoil = spoil
    async with store.opened() as upstream:
        body, broken = await until_broken(upstream)
    assert BODY.startswith(body)
    assert broken.outcome == "truncated"


async def test_store_that_refuses_more_connections_costs_nothing() -> None:
    """The stream goes on where no piece can be opened."""
    store = Store()
    store.refusals = {0: UpstreamBusy("busy")}
    async with store.opened() as upstream:
        assert await all_of(upstream) == BODY
    assert len(store.connections) == 1


async def test_refused_piece_is_asked_for_again_when_its_turn_comes() -> None:
    """A refusal that passes before the reader is there is no break."""
    store = Store()
    async with store.opened() as upstream:
        body = bytearray()
        while chunk := await chunk_of(upstream):
            body += chunk
            store.refusals = {500_000: UpstreamBusy("busy")} if len(body) < 300_000 else {}
    assert body == BODY


async def test_refusal_that_stays_breaks_at_its_byte() -> None:
    """What was asked for before is delivered, and then it breaks."""
    store = Store()
    store.refusals = {500_000: UpstreamBusy("busy")}
    async with store.opened() as upstream:
        body, broken = await until_broken(upstream)
    assert body == BODY[: store.parts[-1].last + 1]
    assert broken.outcome == "truncated"


async def test_cut_off_task_is_a_break() -> None:
    """A piece whose task somebody else cancels is no end of it."""
    store = Store()
    store.spoil = lambda connection: setattr(connection, "pauses", 50)
    others = asyncio.all_tasks()
    async with store.opened(2) as upstream:
        reading = asyncio.create_task(until_broken(upstream))
        await until(lambda: not store.connections[0].is_open)
        for task in asyncio.all_tasks() - others - {reading}:
            task.cancel()
        body, broken = await reading
    assert BODY.startswith(body)
    assert broken.outcome == "truncated"


# Who leaves, and who is slow


@pytest.mark.parametrize("chunks", [0, 1, 5, 60, 100])
async def test_close_midway_leaves_nothing(chunks: int) -> None:
    """Wherever it is closed, no task, connection or budget is left (as `opened` checks)."""
    store = Store()
    async with store.opened() as upstream:
        for _ in range(chunks):
            await chunk_of(upstream)


async def test_close_while_a_piece_is_being_opened() -> None:
    """What arrives after the close is closed too."""
    store = Store()
    async with store.opened() as upstream:
        await chunk_of(upstream)
        assert store.budget.left < store.total
        assert len(store.connections) == 1


async def test_cancelled_read_loses_nothing() -> None:
    """A further one goes on at the same byte, in a stream and in a piece."""
    store = Store()
    store.is_gated = True
    async with store.opened() as upstream:
        body = bytearray()
        while len(body) < SIZE:
            reading = asyncio.create_task(chunk_of(upstream))
            await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                body += await reading
            for connection in store.open_ones:
                connection.gate.set()
            body += await chunk_of(upstream)
        assert body == BODY


async def test_client_that_takes_nothing_has_nothing_read_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that is ahead is dropped, and the stream that it had goes on."""
    monkeypatch.setattr(read_ahead_module, "CLIENT_STALL_SECONDS", 60)
    store = Store()
    async with store.opened() as upstream:
        body = bytearray(await chunk_of(upstream))
        await until(lambda: len(store.connections) > 1)
        monkeypatch.setattr(ConcurrencyController, "update", stay)
        lose_patience(upstream, monkeypatch)
        assert store.budget.left == store.total
        assert store.open_ones == store.connections[:1]
        opened = len(store.connections)
        body += await all_of(upstream)
        assert body == BODY
        assert len(store.connections) == opened


async def test_stream_is_cut_at_a_piece_and_goes_on_where_it_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came beyond the piece's beginning is not lost with it."""
    monkeypatch.setattr(read_ahead_module, "CLIENT_STALL_SECONDS", 60)
    store = Store()
    store.chunk = 50_000
    async with store.opened(2) as upstream:
        body = bytearray(await chunk_of(upstream))
        await until(lambda: len(store.connections) > 1)
        while len(body) < store.parts[1].first:
            body += await chunk_of(upstream)
        assert len(body) == store.parts[1].first
        assert store.connections[0].position > len(body)
        monkeypatch.setattr(ConcurrencyController, "update", stay)
        lose_patience(upstream, monkeypatch)
        assert store.budget.left == store.total
        assert store.connections[0].is_open
        body += await all_of(upstream)
        assert body == BODY
    assert store.connections[0].position == SIZE


async def test_stream_passes_a_piece_of_which_nothing_has_come() -> None:
    """A store that is slow to give more connections costs no waiting, and few requests."""
    store = Store()
    store.is_gated = True
    async with store.opened() as upstream:
        assert await all_of(upstream) == BODY
    assert 1 < len(store.connections) < 24


async def test_slow_client_that_is_in_a_piece_goes_on_with_a_plain_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One request for all of the rest, from exactly the next byte."""
    monkeypatch.setattr(read_ahead_module, "CLIENT_STALL_SECONDS", 60)
    store = Store()
    async with store.opened() as upstream:
        body = bytearray()
        while store.connections[0].is_open:
            body += await chunk_of(upstream)
        monkeypatch.setattr(ConcurrencyController, "update", stay)
        lose_patience(upstream, monkeypatch)
        assert store.budget.left == store.total
        assert not store.open_ones
        opened = len(store.connections)
        position = len(body)
        body += await all_of(upstream)
        assert body == BODY
        assert store.parts[opened:] == [Part(position, SIZE - 1)]


async def test_shrinking_to_one_drops_what_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one connection there is nothing ahead, even for a reader that waits for a piece."""
    store = Store()
    async with store.opened(2) as upstream:
        body = bytearray()
        while store.connections[0].is_open:
            body += await chunk_of(upstream)
        monkeypatch.setattr(
            ConcurrencyController, "update", lambda controller, _: controller.back_off(0.0, 1)
        )
        body += await all_of(upstream)
        assert body == BODY
        assert store.parts[-1].last == SIZE - 1


async def test_lagging_client_is_no_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that wait in buffers of ours were not taken, however fast they went there."""
    seen: list[float] = []
    monkeypatch.setattr(
        ConcurrencyController, "update", lambda _, window: seen.append(window.waited)
    )
    store = Store()
    async with store.opened(lag=lambda: 20_000) as upstream:
        await all_of(upstream)
    assert seen[:5] == [0.0] * 5
    assert all(seen[7:20])


async def test_body_that_is_over_is_collected() -> None:
    """No timer and no task keeps what was closed."""
    store = Store()
    async with store.opened() as upstream:
        await chunk_of(upstream)
    del upstream
    gc.collect()
    kept = [o for o in gc.get_objects() if isinstance(o, read_ahead_module._ReadAhead)]
    assert not kept


# The pilot, in made-up numbers

judge = ConcurrencyController.update


class Flight:
    """A pilot before a store that gives each connection `share`, and all of them `total`."""

    def __init__(self, *, share: float = 40 * MIB, total: float = 1e12, most: int = 8) -> None:
        self.controller = ConcurrencyController(most)
        self.share, self.total = share, total
        self.now = 100.0
        self.widths = [1]

    def window(
        self, *, waited: float = 0.95, cpu: float = 0.2, opening: bool = False, ms: float = 10
    ) -> int:
        seconds = ms / 1000
        flowing = self.controller.width - opening
        rate = min(flowing * self.share, self.total)
        seen = Window(
            self.now,
            cpu * seconds,
            seconds=seconds,
            received=int(rate * seconds),
            connected=flowing * seconds,
            waited=waited * seconds,
            is_opening=opening,
        )
        self.now += seconds
        judge(self.controller, seen)
        self.widths.append(self.controller.width)
        return self.controller.width


def test_grows_one_at_a_time_as_long_as_each_adds_speed() -> None:
    """From one to the most, and no further."""
    flight = Flight()
    for _ in range(12):
        flight.window()
    assert flight.widths == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8]


def test_waits_for_the_first_byte_of_the_newest() -> None:
    """A connection that has given nothing yet has shown nothing yet."""
    flight = Flight()
    flight.window()
    assert {flight.window(opening=True) for _ in range(50)} == {2}
    assert flight.window() == 3


def test_burst_at_the_beginning_does_not_hinder() -> None:
    """What a first connection gives at once is not what the next ones are held to."""
    flight = Flight(share=60 * MIB)
    flight.window()
    flight.share = 40 * MIB
    for _ in range(20):
        flight.window()
    assert flight.controller.width == 8


@pytest.mark.parametrize("total", [40 * MIB, 100 * MIB, 200 * MIB])
def test_takes_back_what_adds_nothing(total: float) -> None:
    """It ends at what the store gives in all, and tries again ever more rarely."""
    flight = Flight(total=total)
    for _ in range(6000):
        flight.window()
    enough = -(-total // flight.share)
    assert max(flight.widths) <= enough + 1
    tried = [n for n, (a, b) in enumerate(pairwise(flight.widths)) if b > a]
    assert flight.widths[-1] in (enough, enough + 1)
    assert len([n for n in tried if n > 100]) <= 6
    assert sum(width > enough for width in flight.widths) <= (len(tried) + 1) * TRIES


@pytest.mark.parametrize(
    ("waited", "cpu"), [(0.4, 0.2), (0.0, 0.0), (0.95, 0.9), (0.6, 0.7), (0.3, 1.0)]
)
def test_does_not_grow_where_something_else_limits(waited: float, cpu: float) -> None:
    """The client, or the CPU."""
    flight = Flight()
    for _ in range(1000):
        flight.window(waited=waited, cpu=cpu)
    assert set(flight.widths) == {1}


def test_does_not_grow_where_one_connection_is_fast() -> None:
    """A connection that gives so much is none that a store limits."""
    flight = Flight(share=300 * MIB)
    for _ in range(1000):
        flight.window()
    assert set(flight.widths) == {1}


def test_client_that_slows_is_read_ahead_for_less() -> None:
    """By one connection at a time, down to one, in about a second."""
    flight = Flight()
    for _ in range(10):
        flight.window()
    flight.widths = [8]
    for _ in range(120):
        flight.window(waited=0.0)
    assert sorted(set(flight.widths), reverse=True) == [8, 7, 6, 5, 4, 3, 2, 1]
    assert flight.widths == sorted(flight.widths, reverse=True)


def test_burst_is_no_slow_client() -> None:
    """A buffered piece goes out at once, and then the next is waited for."""
    flight = Flight()
    for n in range(1000):
        flight.window(waited=0.1 if n % 4 == 3 else 0.95)
    assert flight.controller.width == 8
    assert flight.widths == sorted(flight.widths)


def test_slow_client_whose_buffers_drain_in_steps_is_not_grown_for() -> None:
    """What a buffer takes in a moment is not what its client takes."""
    flight = Flight()
    flight.window(waited=0.1, ms=500)
    for _ in range(50):
        for _ in range(4):
            flight.window()
        flight.window(waited=0.0, ms=500)
    assert set(flight.widths) == {1}


def test_jerky_client_is_grown_for_ever_more_rarely() -> None:
    """Each time that what is ahead was dropped, the next growth is twice as far away."""
    flight = Flight()
    grown: list[float] = []
    for _ in range(20_000):
        if flight.window() > 1:
            grown.append(flight.now)
            flight.controller.back_off(flight.now, 1)
    pauses = [b - a for a, b in pairwise(grown)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], abs=0.1)


def test_growth_that_is_not_possible_is_undone() -> None:
    """And may be tried at once: it cost nothing."""
    flight = Flight()
    assert flight.window() == 2
    flight.controller.undo()
    assert flight.controller.width == 1
    assert flight.window() == 2
