"""The buffer between a transport and the reader of a body; no byte is copied."""

import math

# Bytes: enough for the head of a response and a small body after it.
HEAD_BUFFER = 32 * 1024

# Bytes of a chunk. Chunks of 512 KiB need a third of the CPU time of chunks of 64 KiB. But each
# download holds three: one fills, one waits, one is being sent. So a chunk has at most an eighth
# of the bytes taken without a pause: network buffers at first take many for a slow client, too.
# Only a client that has taken FAST_BYTES at FAST_PACE gets large chunks at once, since it takes
# each of them within PAUSE_SECONDS.
SMALL_CHUNK = 32 * 1024
LARGE_CHUNK = 512 * 1024
CHUNK_SHARE = 8
FAST_BYTES = 1024 * 1024
PAUSE_SECONDS = 0.05
FAST_PACE = LARGE_CHUNK / PAUSE_SECONDS  # bytes per second


class RawBuffer:
    """`data[start:end]` are the bytes that the transport has written and the reader must take.

    A taken chunk is never overwritten: the server's transport refers to it until it is sent.
    """

    def __init__(self) -> None:
        self.data = bytearray(HEAD_BUFFER)
        self.start = self.end = 0
        self._chunk = SMALL_CHUNK
        self._taken_without_pause = 0
        self._begun_at = self._taken_at = -math.inf
        self.is_fast = False  # Whether the last chunk was taken by a fast client.

    @property
    def is_full(self) -> bool:
        """Whether the reader must take bytes before the transport writes more."""
        return self.start < self.end == len(self.data)

    def writable(self, size: int) -> memoryview:
        """Return memory that the transport may fill, at most `size` bytes."""
        if self.start == self.end == len(self.data):
            self.data = bytearray(min(self._chunk, size))
            self.start = self.end = 0
        return memoryview(self.data)[self.end : self.end + size]

    def note_reader(self, now: float) -> None:
        """Note that the reader waits for a chunk; after a pause, start with small chunks again."""
        if now - self._taken_at > PAUSE_SECONDS:
            self._taken_without_pause, self._begun_at = 0, now

    def take(self, now: float, *, is_last: bool) -> memoryview:
        """Return all bytes that have arrived; `is_last` frees the buffer, since no more follow."""
        chunk = memoryview(self.data)[self.start : self.end]
        taken = self._taken_without_pause = self._taken_without_pause + len(chunk)
        self.is_fast = taken >= max(FAST_BYTES, FAST_PACE * (now - self._begun_at))
        share = LARGE_CHUNK if self.is_fast else taken // CHUNK_SHARE
        self._chunk = min(max(share, SMALL_CHUNK), LARGE_CHUNK)
        self._taken_at = now
        self.start = self.end
        if is_last or self.end == len(self.data):
            self.clear()
        return chunk

    def clear(self) -> None:
        """Drop all bytes and free the buffer."""
        self.start, self.end, self.data = 0, 0, bytearray()
