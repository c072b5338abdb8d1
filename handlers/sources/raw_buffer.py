"""The buffer between a transport and the reader of a body, without a copy."""

import math

# Large enough for a head and for a small body after it.
HEAD_BUFFER = 32 * 1024

# A large chunk costs least: 512 KiB a third of the time of chunks of 64 KiB. But each download
# holds several chunks: one fills, one waits, one is being sent. So no chunk is larger than an
# eighth of the bytes that the reader has taken without a pause. Also a slow client takes many
# bytes at first: they fill the buffers on the way.
SMALL_CHUNK = 32 * 1024
LARGE_CHUNK = 512 * 1024
CHUNK_SHARE = 8
PAUSE_SECONDS = 0.05


class RawBuffer:
    """Bytes from `start` to `end` that a transport has written and a reader has not taken.

    Nothing writes to a chunk that was taken: the server's transport holds it until it is sent.
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
        """Return where the transport may write, at most `size` bytes."""
        if self.start == self.end == len(self.data):
            chunk = min(max(self._taken_without_pause // CHUNK_SHARE, SMALL_CHUNK), LARGE_CHUNK)
            self.data = bytearray(min(chunk, size))
            self.start = self.end = 0
        return memoryview(self.data)[self.end : self.end + size]

    def note_reader(self, now: float) -> None:
        """Note that the reader wants the next chunk, which ends its pause."""
        if now - self._taken_at > PAUSE_SECONDS:
            self._taken_without_pause = 0

    def take(self, now: float, *, is_last: bool) -> memoryview:
        """Return the bytes that have arrived; the transport first fills the rest of the buffer."""
        chunk = memoryview(self.data)[self.start : self.end]
        self._taken_without_pause += len(chunk)
        self._taken_at = now
        self.start = self.end
        if is_last or self.end == len(self.data):
            self.clear()
        return chunk

    def clear(self) -> None:
        """Drop all bytes and the buffer itself."""
        self.start, self.end, self.data = 0, 0, bytearray()
