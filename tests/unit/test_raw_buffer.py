"""The sizes of a body's chunks: they follow the pace at which the reader takes them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from handlers.sources.raw_buffer import (
    CHUNK_SHARE,
    FAST_BYTES,
    FAST_PACE,
    LARGE_CHUNK,
    PAUSE_SECONDS,
    SMALL_CHUNK,
    RawBuffer,
)

KIB = 1024


@dataclass
class Reader:
    """Takes full chunks from a buffer that is filled at once, by a clock of its own."""

    buffer: RawBuffer = field(default_factory=RawBuffer)
    now: float = 1000.0

    def take(self, seconds: float = 0) -> int:
        """Return the size of the next chunk, which is then used for `seconds`."""
        self.buffer.note_reader(self.now)
        self.buffer.end += len(self.buffer.writable(10 * LARGE_CHUNK))
        size = len(self.buffer.take(self.now, is_last=False))
        self.now += seconds
        return size

    def take_bytes(self, count: int, pace: float) -> list[int]:
        """Take chunks at `pace` bytes per second, in all `count` bytes; return their sizes."""
        sizes: list[int] = []
        while sum(sizes) < count:
            sizes.append(self.take())
            self.now += sizes[-1] / pace
        return sizes


def test_fast_reader_gets_large_chunks_after_fast_bytes() -> None:
    """Chunks grow with the bytes taken, and then at once to the largest size."""
    reader = Reader()
    sizes = reader.take_bytes(FAST_BYTES, pace=2 * FAST_PACE)
    assert sizes[:8] == [SMALL_CHUNK] * 8
    assert max(sizes) <= FAST_BYTES // CHUNK_SHARE
    assert reader.take() == LARGE_CHUNK


@pytest.mark.parametrize("pace", [700 * KIB, 2_000 * KIB, 5_000 * KIB, 10_000 * KIB])
def test_reader_of_the_internet_gets_chunks_that_it_uses_without_a_pause(pace: float) -> None:
    """At a pace below FAST_PACE, a chunk lasts for PAUSE_SECONDS and a little more at most."""
    sizes = Reader().take_bytes(20 * FAST_BYTES, pace)
    assert max(sizes) <= max(1.3 * pace * PAUSE_SECONDS, SMALL_CHUNK)


def test_network_buffers_of_a_slow_client_get_small_chunks() -> None:
    """What network buffers take at once makes a chunk of an eighth of it at most."""
    reader = Reader()
    sizes = reader.take_bytes(FAST_BYTES * 3 // 4, pace=100 * FAST_PACE)
    assert max(sizes) <= FAST_BYTES // CHUNK_SHARE
    for _ in range(2):  # These chunks were filled before the client was seen to be slow.
        assert reader.take(seconds=2 * PAUSE_SECONDS) <= FAST_BYTES // CHUNK_SHARE
    assert [reader.take(seconds=2 * PAUSE_SECONDS) for _ in range(9)] == [SMALL_CHUNK] * 9


def test_pause_makes_chunks_small_again() -> None:
    """After a pause, a fast reader starts anew, and becomes fast again."""
    reader = Reader()
    reader.take_bytes(4 * FAST_BYTES, pace=2 * FAST_PACE)
    reader.now += 2 * PAUSE_SECONDS
    assert reader.take() == LARGE_CHUNK  # from before the pause
    assert reader.take() == LARGE_CHUNK // CHUNK_SHARE
    reader.take_bytes(FAST_BYTES, pace=2 * FAST_PACE)
    assert reader.take() == LARGE_CHUNK
