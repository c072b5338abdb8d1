"""The buffer between a transport and the reader of a body, without a copy."""

import math

# Large enough for a head and for a small body after it.
HEAD_BUFFER = 32 * 1024

# A large chunk costs least: 512 KiB a third of the time that chunks of 64 KiB take. But each
# download holds several chunks: one that fills, one that waits, one that is being sent. So no
# chunk is larger than an eighth of the bytes that the reader has taken without a pause: the
# buffers on the way to a slow client take many bytes at first, and then the reader pauses.
SMALL_CHUNK = 32 * 1024
LARGE_CHUNK = 512 * 1024
CHUNK_SHARE = 8
PAUSE_SECONDS = 0.05

_EMPTY = bytearray()


class RawBuffer:
    """Bytes that a transport writes and a reader takes.

    Nothing writes to a chunk that was taken: the server's transport holds it until it is sent.
    """

    def __init__(self) -> None:
        self.data = bytearray(HEAD_BUFFER)
        self.start = 0
        """Where the reader takes the next byte."""
        self.end = 0
        """Where the transport writes the next byte."""
        self._taken_without_pause = 0
        self._taken_at = math.inf

    def is_empty(self) -> bool:
        """Return whether there is no byte to take."""
        return self.start == self.end

    def is_full(self) -> bool:
        """Return whether the transport has filled the buffer."""
        return self.end == len(self.data)

    def writable(self, size: int) -> memoryview:
        """Return where the transport may write, at most `size` bytes."""
        if self.start == self.end == len(self.data):
            chunk = min(max(self._taken_without_pause // CHUNK_SHARE, SMALL_CHUNK), LARGE_CHUNK)
            self.data = bytearray(min(chunk, size))
            self.start = self.end = 0
        return memoryview(self.data)[self.end : self.end + size]

    def note_reader(self, now: float) -> None:
        """Note that the reader wants a chunk: its pause has ended."""
        if now - self._taken_at > PAUSE_SECONDS:
            self._taken_without_pause = 0

    def take(self, now: float, *, is_last: bool) -> memoryview:
        """Return the bytes that have arrived; the transport fills the rest of a buffer first."""
        chunk = memoryview(self.data)[self.start : self.end]
        self._taken_without_pause += len(chunk)
        self._taken_at = now
        self.start = self.end
        if is_last or self.end == len(self.data):
            self.clear()
        return chunk

    def clear(self) -> None:
        """Forget all bytes."""
        self.start, self.end, self.data = 0, 0, _EMPTY
