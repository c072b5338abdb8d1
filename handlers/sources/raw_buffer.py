"""The buffer between a transport and the reader of a body; no byte is copied."""

import math

# Bytes: enough for the head of a response and a small body after it.
HEAD_BUFFER = 32 * 1024

# Bytes of a chunk. Chunks of 512 KiB need a third of the CPU time of chunks of 64 KiB. But each
# download holds three: one fills, one waits, one is being sent. So chunks become large after
# LARGE_AFTER bytes without a pause: network buffers at first take many for a slow client, too.
SMALL_CHUNK = 32 * 1024
LARGE_CHUNK = 512 * 1024
LARGE_AFTER = 512 * 1024
PAUSE_SECONDS = 0.05


class RawBuffer:
    """`data[start:end]` are the bytes that the transport has written and the reader must take.

    A taken chunk is never overwritten: the server's transport refers to it until it is sent.
    """

    def __init__(self) -> None:
        self.data = bytearray(HEAD_BUFFER)
        self.start = self.end = 0
        self._taken_without_pause = 0
        self._taken_at = math.inf

    @property
    def is_full(self) -> bool:
        """Whether the reader must take bytes before the transport writes more."""
        return self.start < self.end == len(self.data)

    def writable(self, size: int) -> memoryview:
        """Return memory that the transport may fill, at most `size` bytes."""
        if self.start == self.end == len(self.data):
            is_fast = self._taken_without_pause >= LARGE_AFTER
            self.data = bytearray(min(LARGE_CHUNK if is_fast else SMALL_CHUNK, size))
            self.start = self.end = 0
        return memoryview(self.data)[self.end : self.end + size]

    def note_reader(self, now: float) -> None:
        """Note that the reader waits for a chunk; after a pause, start with small chunks again."""
        if now - self._taken_at > PAUSE_SECONDS:
            self._taken_without_pause = 0

    def take(self, now: float, *, is_last: bool) -> memoryview:
        """Return all bytes that have arrived; `is_last` frees the buffer, since no more follow."""
        chunk = memoryview(self.data)[self.start : self.end]
        self._taken_without_pause += len(chunk)
        self._taken_at = now
        self.start = self.end
        if is_last or self.end == len(self.data):
            self.clear()
        return chunk

    def clear(self) -> None:
        """Drop all bytes and free the buffer."""
        self.start, self.end, self.data = 0, 0, bytearray()
