"""Read-ahead: the same bytes, in order, over several connections."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Self

import pytest

from handlers.body.concurrency import ConcurrencyController, ReadAheadLimits, ThreadLoad, Window
from handlers.body.piece import Piece
from handlers.body.read_ahead import Budget, ReadAhead, ReadAheadPolicy, read_ahead
from handlers.body.upstream import Upstream
from handlers.errors import BrokenTransfer, UpstreamBusy
from handlers.rfc9110.ranges import Part
from tests.support.memory_store import MemoryConnection, MemoryStore, RecordingObserver

KIB, MIB = 1024, 1024 * 1024
SIZE = 1_000_003
BODY = random.Random(5).randbytes(SIZE)
WHOLE = Part(0, SIZE - 1)

# Small pieces, and a decision after each chunk.
LIMITS = ReadAheadLimits(
    min_length=100 * KIB, min_piece=10 * KIB, max_piece=80 * KIB, window=0, stall=60
)


class GrowingController(ConcurrencyController):
    """A controller that adds a connection at each decision, up to the maximum."""

    def update(self, window: Window) -> None:
        self.width = min(self.width + 1, self._most)


class FixedController(ConcurrencyController):
    """A controller that never changes the number of connections."""

    def update(self, window: Window) -> None:
        pass


class Body:
    """A body with read-ahead; fails if a task, connection or budget is in use after its close."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        width: int = 4,
        part: Part = WHOLE,
        budget: Budget | None = None,
        limits: ReadAheadLimits = LIMITS,
        controller: type[ConcurrencyController] = GrowingController,
        lag: Callable[[], int] = lambda: 0,
    ) -> None:
        self.store = store
        self.budget = budget or Budget(8 * MIB, limits)
        self.total = self.budget.left
        self.controller = controller(width, limits)
        self.budget.controller = lambda *_: self.controller
        self.observer = RecordingObserver()
        self.stack = ExitStack()
        connection = store.connect(part)
        connection.gate.set()
        connection.pauses = 20  # Pieces start before the stream reaches them.
        stream = store.upstream(connection, self.stack)
        policy = ReadAheadPolicy(self.budget, width, lag, self.observer)
        self.upstream = read_ahead(stream, part, self.stack, store.open_part, policy)

    async def chunk(self) -> bytes:
        assert self.upstream.read is not None
        return bytes(await self.upstream.read())

    async def rest(self) -> bytes:
        body = bytearray()
        while chunk := await self.chunk():
            body += chunk
        assert await self.chunk() == b""
        return bytes(body)

    async def read_until_broken(self) -> tuple[bytes, BrokenTransfer]:
        body = bytearray()
        try:
            while chunk := await self.chunk():
                body += chunk
        except BrokenTransfer as broken:
            return bytes(body), broken
        pytest.fail("it did not break")

    def stop_growing(self) -> None:
        self.controller.update = FixedController.update.__get__(self.controller)  # type: ignore[method-assign]

    async def stall(self) -> None:
        """Read nothing until the pieces have been dropped."""
        self.stop_growing()
        await wait_until(lambda: self.budget.left == self.total)

    async def __aenter__(self) -> Self:
        self.tasks = asyncio.all_tasks()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.upstream.close()
        self.stack.close()
        assert not self.store.open_connections
        assert self.budget.left == self.total
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= self.tasks


async def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never was so")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(BODY)


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("chunk", [1_000, 7_001, 64 * KIB, 2 * MIB])
async def test_body_over_several_connections_is_complete(
    store: MemoryStore, width: int, chunk: int
) -> None:
    """All bytes arrive once and in order, over at most `width` connections."""
    store.chunk = chunk
    async with Body(store, width=width) as body:
        assert await body.rest() == BODY
    assert store.most_open <= width
    if chunk < 10 * KIB:
        assert store.most_open == width


async def test_pieces_of_a_part_are_contiguous(store: MemoryStore) -> None:
    """Each byte after the first stream is requested once, within the part."""
    part = Part(12_345, SIZE - 4_321)
    async with Body(store, part=part) as body:
        assert await body.rest() == BODY[part.first : part.last + 1]
    pieces = store.parts[1:]
    assert all(a.last + 1 == b.first for a, b in pairwise(pieces))
    assert pieces[-1].last == part.last
    assert all(piece.length >= LIMITS.min_piece for piece in pieces)


async def test_pieces_for_slow_client_are_at_most_1_5_times_width(store: MemoryStore) -> None:
    """At most 1.5 times `width` pieces wait for a slow client."""
    held = set()
    async with Body(store, width=4) as body:
        received = bytearray()
        while chunk := await body.chunk():
            received += chunk
            held.add(sum(part.last >= len(received) for part in store.parts[1:]))
            for _ in range(30):
                await asyncio.sleep(0)
    assert received == BODY
    assert max(held) == 6


async def test_pieces_arriving_in_any_order_are_returned_in_order(store: MemoryStore) -> None:
    """A piece that is complete early waits for the pieces before it."""
    store.is_gated = True
    rng = random.Random(3)

    async def open_gates() -> None:
        while True:
            closed = [c for c in store.open_connections if not c.gate.is_set()]
            if closed:
                rng.choice(closed).gate.set()
            await asyncio.sleep(0.0005)

    gates = asyncio.create_task(open_gates())
    async with Body(store) as body:
        assert await body.rest() == BODY
        gates.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(32))
async def test_body_with_random_faults_is_a_prefix_of_the_object(
    store: MemoryStore, seed: int
) -> None:
    """With any faults of store, client and controller, the bytes are a prefix of the object."""
    rng = random.Random(seed)
    budget = Budget(rng.choice([100 * KIB, 8 * MIB]), LIMITS)
    store.chunk = rng.choice([999, 30_000])
    store.failures = [rng.randrange(SIZE) for _ in range(rng.choice([0, 0, 1, 2]))]
    is_refused = rng.random() < 0.3

    async def refuse() -> None:
        while is_refused:
            store.refusals = {0: UpstreamBusy("busy")} if rng.random() < 0.5 else {}
            await asyncio.sleep(0.001)

    class Random(ConcurrencyController):
        def update(self, window: Window) -> None:
            self.width = min(max(self.width + rng.choice([-1, 0, 1, 1]), 1), self._most)

    refusing = asyncio.create_task(refuse())
    width = rng.choice([2, 5])
    async with Body(store, width=width, budget=budget, controller=Random) as body:
        received = bytearray()
        try:
            while chunk := await body.chunk():
                received += chunk
                if rng.random() < 0.1:
                    await asyncio.sleep(0.0001)
            assert len(received) == SIZE
        except BrokenTransfer:
            assert store.failures or is_refused
        assert BODY.startswith(received)
        refusing.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("size", "width", "is_ahead"),
    [(100 * KIB, 2, True), (100 * KIB - 1, 2, False), (SIZE, 1, False), (SIZE, 0, False)],
)
async def test_short_body_or_single_connection_is_not_read_ahead(
    store: MemoryStore, size: int, width: int, is_ahead: bool
) -> None:
    """Below the minimum length or with one connection, there is no read-ahead."""
    async with Body(store, width=width, part=Part(0, size - 1)) as body:
        assert (body.upstream.read != store.connections[0].read) is is_ahead
        assert await body.rest() == BODY[:size]


async def test_head_answer_is_not_read_ahead(store: MemoryStore) -> None:
    """An answer to HEAD has no read-ahead."""
    head = Upstream(headers={}, length=SIZE)
    policy = ReadAheadPolicy(Budget(8 * MIB), 4)
    assert read_ahead(head, WHOLE, ExitStack(), store.open_part, policy) is head


async def test_controller_with_one_connection_sends_one_request(store: MemoryStore) -> None:
    """If the controller keeps one connection, no piece is requested."""
    async with Body(store, controller=FixedController) as body:
        assert await body.rest() == BODY
    assert len(store.connections) == 1


async def test_excess_bytes_of_the_stream_are_returned(store: MemoryStore) -> None:
    """The stream is read beyond the end of its part, so that the reader sees excess bytes."""
    async with Body(store, part=Part(0, SIZE - 11), controller=FixedController) as body:
        store.connections[0].part = WHOLE
        assert await body.rest() == BODY


# The budget


def test_budget_take_returns_at_most_half_of_the_rest() -> None:
    """`take` returns at most half of the remaining budget, and at least the smallest piece."""
    budget = Budget(100, replace(LIMITS, min_piece=10))
    assert [budget.take(80), budget.take(10), budget.take(80), budget.take(80)] == [50, 10, 20, 10]
    assert budget.take(80) == 0
    budget.give(50)
    assert budget.take(80) == 30


async def test_parallel_downloads_stay_within_the_budget(store: MemoryStore) -> None:
    """Parallel downloads stay within the budget, and all of them finish."""
    budget = Budget(200 * KIB, LIMITS)
    least = [budget.left]
    store.spoil = lambda _: least.append(budget.left)
    bodies = [Body(store, width=8, budget=budget) for _ in range(5)]
    assert await asyncio.gather(*(body.rest() for body in bodies)) == [BODY] * 5
    for body in bodies:
        body.stack.close()
    assert 0 <= min(least) < least[0]
    assert budget.left == least[0]


async def test_exhausted_budget_sends_one_request(store: MemoryStore) -> None:
    """Without budget, a download uses one request and does not wait."""
    async with Body(store, budget=Budget(5 * KIB, LIMITS)) as body:
        assert await body.rest() == BODY
    assert len(store.connections) == 1


# Pieces that break


async def test_broken_piece_raises_after_its_bytes(store: MemoryStore) -> None:
    """The bytes before the break are returned, and then BrokenTransfer is raised."""
    store.failures = [700_000]
    store.spoil = lambda c: setattr(c, "fails_at", None) if c.part.first == 0 else None
    async with Body(store) as body:
        received, broken = await body.read_until_broken()
    assert received == BODY[:700_000]
    assert broken.outcome == "upstream_timeout"


@pytest.mark.parametrize("by", [-1, 1])
async def test_piece_of_wrong_length_raises_broken_transfer(store: MemoryStore, by: int) -> None:
    """A piece that is one byte too short or too long raises BrokenTransfer."""
    ends: list[int] = []

    def spoil(connection: MemoryConnection) -> None:
        if connection.part.first > 500_000:
            ends.append(connection.part.last + 1)
            connection.part = Part(connection.part.first, connection.part.last + by)

    store.spoil = spoil
    async with Body(store) as body:
        received, broken = await body.read_until_broken()
    assert BODY.startswith(received)
    assert 500_000 < len(received) <= min(ends)
    assert broken.outcome == "truncated"


async def test_piece_with_unexpected_error_raises_broken_transfer(store: MemoryStore) -> None:
    """An unexpected exception in a piece raises BrokenTransfer in the reader."""

    async def broken_read() -> bytes:
        raise ValueError("a bug")

    def spoil(connection: MemoryConnection) -> None:
        if connection.part.first > 500_000:
            connection.read = broken_read  # type: ignore[method-assign]

    store.spoil = spoil
    async with Body(store) as body:
        received, broken = await body.read_until_broken()
    assert BODY.startswith(received)
    assert broken.outcome == "truncated"


async def test_refused_pieces_keep_the_first_stream(store: MemoryStore) -> None:
    """If no piece can be opened, the first stream continues, and each failure is counted."""
    store.refusals = {0: UpstreamBusy("busy")}
    async with Body(store) as body:
        assert await body.rest() == BODY
    assert len(store.connections) == 1
    assert set(body.observer.failed) == {"can't open a range: UpstreamBusy: busy"}


async def test_refused_pieces_take_the_connections_back(store: MemoryStore) -> None:
    """Each refusal halves the number of connections, until the controller adds some."""
    store.refusals = {0: UpstreamBusy("busy")}
    async with Body(store, controller=FixedController) as body:
        body.controller.width = 4
        assert await body.rest() == BODY
        assert body.controller.width == 1
    assert len(store.requests) == 3


async def test_refused_piece_is_requested_again_when_needed(store: MemoryStore) -> None:
    """A piece that was refused earlier is requested again when the reader reaches it."""
    async with Body(store) as body:
        received = bytearray()
        while chunk := await body.chunk():
            received += chunk
            store.refusals = {400_000: UpstreamBusy("busy")} if len(received) < 380_000 else {}
    assert received == BODY
    assert body.observer.failed


async def test_refusal_that_lasts_raises_at_its_first_byte(store: MemoryStore) -> None:
    """Pieces opened before the refusal are returned, and then BrokenTransfer is raised."""
    store.refusals = {500_000: UpstreamBusy("busy")}
    async with Body(store) as body:
        received, broken = await body.read_until_broken()
    assert received == BODY[: store.parts[-1].last + 1]
    assert broken.outcome == "truncated"


async def test_cancelled_piece_task_raises_broken_transfer(store: MemoryStore) -> None:
    """A cancellation of a piece's task raises BrokenTransfer in the reader."""
    store.spoil = lambda connection: setattr(connection, "pauses", 50)
    others = asyncio.all_tasks()
    async with Body(store, width=2) as body:
        reading = asyncio.create_task(body.read_until_broken())
        await wait_until(lambda: not store.connections[0].is_open)
        for task in asyncio.all_tasks() - others - {reading}:
            task.cancel()
        received, broken = await reading
    assert BODY.startswith(received)
    assert broken.outcome == "truncated"


# Clients that disconnect, and slow clients


@pytest.mark.parametrize("chunks", [0, 1, 5, 60, 100])
async def test_close_before_end_frees_everything(store: MemoryStore, chunks: int) -> None:
    """After an early close, no task, connection or budget is in use."""
    async with Body(store) as body:
        for _ in range(chunks):
            await body.chunk()


async def test_close_while_opening_a_piece_frees_everything(store: MemoryStore) -> None:
    """A connection that is being opened at the close is closed."""
    async with Body(store) as body:
        await body.chunk()
        await body.chunk()
        assert body.budget.left < body.total


async def test_cancelled_read_loses_no_byte(store: MemoryStore) -> None:
    """The next read returns the next byte, in the stream and in a piece."""
    store.is_gated = True
    async with Body(store) as body:
        received = bytearray()
        while len(received) < SIZE:
            reading = asyncio.create_task(body.chunk())
            await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                received += await reading
            for connection in store.open_connections:
                connection.gate.set()
            received += await body.chunk()
        assert received == BODY


STALLING = replace(LIMITS, stall=0.2)


async def test_stalled_client_drops_the_pieces(store: MemoryStore) -> None:
    """If the client stalls, the pieces are dropped and the first stream continues."""
    async with Body(store, limits=STALLING) as body:
        received = bytearray()
        while len(store.connections) < 2:
            received += await body.chunk()
        await body.stall()
        assert store.open_connections == store.connections[:1]
        opened = len(store.connections)
        received += await body.rest()
        assert received == BODY
        assert len(store.connections) == opened


async def test_stream_overlapping_a_dropped_piece_continues(store: MemoryStore) -> None:
    """A stream that is already inside a dropped piece continues to the end."""
    store.chunk = 50_000
    async with Body(store, width=2, limits=STALLING) as body:
        received = bytearray()
        while len(store.connections) < 2 or len(received) <= store.parts[1].first:
            received += await body.chunk()
        assert len(received) <= store.parts[1].last
        await body.stall()
        assert store.connections[0].is_open
        received += await body.rest()
        assert received == BODY
    assert store.connections[0].position == SIZE


@pytest.mark.parametrize(("width", "requests"), [(2, 8), (4, 16)])
async def test_stream_reads_past_a_piece_without_bytes(
    store: MemoryStore, width: int, requests: int
) -> None:
    """If pieces are slow to open, the stream reads on, and few requests are sent."""
    store.is_gated = True
    async with Body(store, width=width) as body:
        assert await body.rest() == BODY
    assert 1 < len(store.connections) <= requests


async def test_refused_piece_stops_further_requests(store: MemoryStore) -> None:
    """After a refused piece, at most three more requests are sent."""
    store.refusals = {150_000: UpstreamBusy("busy")}
    async with Body(store, width=8) as body:
        received = 0
        while received < 120_000:
            received += len(await body.chunk())
            await asyncio.sleep(0.001)
        assert len([part for part in store.requests if part.first >= 150_000]) <= 3


async def test_client_stalling_within_a_piece_gets_one_stream(store: MemoryStore) -> None:
    """After the stall, one request gets all bytes from the next one on."""
    async with Body(store, limits=STALLING) as body:
        received = bytearray()
        while store.connections[0].is_open:
            received += await body.chunk()
        await body.stall()
        assert not store.open_connections
        opened, position = len(store.connections), len(received)
        received += await body.rest()
        assert received == BODY
        assert store.parts[opened:] == [Part(position, SIZE - 1)]


async def test_controller_shrinking_to_one_drops_the_pieces(store: MemoryStore) -> None:
    """If the controller shrinks to one connection, one request gets the rest."""
    async with Body(store, width=2) as body:
        received = bytearray()
        while store.connections[0].is_open:
            received += await body.chunk()
        body.controller.update = lambda window: body.controller.back_off(window.began, 1)  # type: ignore[method-assign]
        received += await body.chunk()
        assert not store.open_connections
        opened, position = len(store.connections), len(received)
        received += await body.rest()
        assert received == BODY
        assert store.parts[opened:] == [Part(position, SIZE - 1)]


async def test_bytes_in_send_buffers_count_as_waiting_for_the_client(store: MemoryStore) -> None:
    """While most bytes wait in the send buffers, the client counts as the limit."""
    waited: list[float] = []

    class Watching(FixedController):
        def update(self, window: Window) -> None:
            waited.append(window.waited)

    async with Body(store, lag=lambda: 20_000, controller=Watching) as body:
        await body.rest()
    assert waited[:5] == [0.0] * 5
    assert all(waited[7:20])


async def test_first_window_counts_no_connection(store: MemoryStore) -> None:
    """Its bytes come in a burst out of buffers, so that it must decide nothing."""
    flowing: list[int] = []

    class Watching(FixedController):
        def update(self, window: Window) -> None:
            flowing.append(window.flowing)

    async with Body(store, controller=Watching) as body:
        await body.rest()
    assert flowing == [0] + [1] * (len(flowing) - 1)


async def test_closed_body_is_freed(store: MemoryStore) -> None:
    """No timer or task keeps a reference to a closed body or its pieces."""
    async with Body(store) as body:
        for _ in range(20):
            await body.chunk()
    del body
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, ReadAhead | Piece)]


# The controller, with simulated measurements


class ControllerSimulation:
    """A controller and a store that limits each connection (`share`) and all (`total`)."""

    def __init__(self, *, share: float = 40 * MIB, total: float = 1e12, most: int = 8) -> None:
        self.controller = ConcurrencyController(most, ReadAheadLimits())
        self.share, self.total = share, total
        self.now = 100.0
        self.widths = [1]

    def window(
        self, *, waited: float = 0.95, cpu: float = 0.2, opening: int = 0, ms: float = 10
    ) -> int:
        seconds = ms / 1000
        flowing = self.controller.width - opening
        window = Window(
            began=self.now,
            flowing=flowing,
            seconds=seconds,
            received=int(min(flowing * self.share, self.total) * seconds),
            waited=waited * seconds,
            busy=cpu,
        )
        self.now += seconds
        self.controller.update(window)
        self.widths.append(self.controller.width)
        return self.controller.width


@pytest.mark.parametrize(("most", "widths"), [(8, [1, 2, 4, 8, 8, 8]), (3, [1, 2, 3, 3])])
def test_controller_doubles_while_connections_add_speed(most: int, widths: list[int]) -> None:
    """The controller doubles the connections up to the maximum while the speed grows."""
    simulation = ControllerSimulation(most=most)
    for _ in widths[1:]:
        simulation.window()
    assert simulation.widths == widths


def test_controller_waits_for_first_bytes_of_new_connections() -> None:
    """The controller does not decide while a new connection has no bytes."""
    simulation = ControllerSimulation()
    simulation.window()
    assert {simulation.window(opening=1) for _ in range(50)} == {2}
    assert simulation.window() == 4


def test_controller_ignores_the_first_window() -> None:
    """The controller ignores the first window, in which a connection is still opening."""
    simulation = ControllerSimulation(share=120 * MIB)
    assert simulation.window(opening=1) == 1
    simulation.share = 40 * MIB
    for _ in range(5):
        simulation.window()
    assert simulation.controller.width == 8


@pytest.mark.parametrize("total", [40 * MIB, 100 * MIB, 200 * MIB])
def test_controller_closes_connections_that_add_no_speed(total: float) -> None:
    """The controller ends at the connections that add speed, and tries more ever less often."""
    simulation = ControllerSimulation(total=total)
    for _ in range(6000):
        simulation.window()
    enough = total / simulation.share
    assert enough - 1 < simulation.widths[-1] < enough + 1
    grown = [n for n, (a, b) in enumerate(pairwise(simulation.widths)) if b > a]
    assert len([n for n in grown if n > 100]) <= 6
    assert sum(width >= enough + 1 for width in simulation.widths) <= 3 * len(grown)


@pytest.mark.parametrize(
    ("waited", "cpu"), [(0.4, 0.2), (0.0, 0.0), (0.95, 0.9), (0.6, 0.7), (0.3, 1.0)]
)
def test_controller_limited_by_client_or_cpu_does_not_grow(waited: float, cpu: float) -> None:
    """If the client or the CPU is the limit, the controller keeps one connection."""
    simulation = ControllerSimulation()
    for _ in range(1000):
        simulation.window(waited=waited, cpu=cpu)
    assert set(simulation.widths) == {1}


def test_controller_with_fast_connection_does_not_grow() -> None:
    """If one connection is fast, the controller keeps one connection."""
    simulation = ControllerSimulation(share=300 * MIB)
    for _ in range(1000):
        simulation.window()
    assert set(simulation.widths) == {1}


def test_controller_with_slow_client_shrinks_to_one() -> None:
    """For a slow client the controller halves the connections down to one."""
    simulation = ControllerSimulation()
    for _ in range(10):
        simulation.window()
    simulation.widths = [8]
    for _ in range(100):
        simulation.window(waited=0.0)
    assert sorted(set(simulation.widths), reverse=True) == [8, 4, 2, 1]
    assert simulation.widths == sorted(simulation.widths, reverse=True)
    assert simulation.widths.count(8) > 10


def test_controller_with_bursts_does_not_shrink() -> None:
    """A burst from memory does not count as a slow client."""
    simulation = ControllerSimulation()
    for n in range(1000):
        simulation.window(waited=0.1 if n % 4 == 3 else 0.95)
    assert simulation.controller.width == 8
    assert simulation.widths == sorted(simulation.widths)


def test_controller_with_stepwise_client_does_not_grow() -> None:
    """A client whose buffers drain in steps keeps one connection."""
    simulation = ControllerSimulation()
    simulation.window(waited=0.1, ms=500)
    for _ in range(50):
        for _ in range(4):
            simulation.window()
        simulation.window(waited=0.0, ms=500)
    assert set(simulation.widths) == {1}


def test_controller_doubles_the_time_after_each_back_off() -> None:
    """Each back-off doubles the time until the controller grows again."""
    simulation = ControllerSimulation()
    grown: list[float] = []
    for _ in range(13_000):
        if simulation.window() > 1:
            grown.append(simulation.now)
            simulation.controller.back_off(simulation.now, 1)
    pauses = [b - a for a, b in pairwise(grown)]
    assert pauses == pytest.approx([2.0**n for n in range(-2, 7)], abs=0.03)


def test_thread_load_is_the_fraction_of_time_in_which_the_thread_is_busy() -> None:
    """A thread that computes is busy; a thread that sleeps is not."""

    def measure(work: Callable[[float], object]) -> float:
        load = ThreadLoad()
        load.fraction(time.monotonic(), 0.01)
        work(0.1)
        return load.fraction(time.monotonic(), 0.01)

    def compute(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    assert measure(time.sleep) < 0.5 < measure(compute)


def test_thread_load_after_a_pause_counts_as_busy() -> None:
    """A mean over an idle time would let the first bodies of a crowd read ahead."""
    load = ThreadLoad()
    assert load.fraction(1000.0, 0.01) == 1.0
    assert load.fraction(1000.02, 0.01) != 1.0
    assert load.fraction(2000.0, 0.01) == 1.0


def test_thread_load_within_a_window_is_measured_once() -> None:
    """A crowd of bodies takes one measurement for each window."""
    load = ThreadLoad()
    load.fraction(1000.0, 0.01)
    first = load.fraction(1000.5, 0.01)
    assert [load.fraction(1000.5 + ms / 1000, 0.01) for ms in range(10)] == [first] * 10
