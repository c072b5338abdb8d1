"""The thresholds of read-ahead."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadAheadLimits:
    """When bodies are read ahead, and how; sizes in bytes, times in seconds."""

    min_length: int = 8 * MIB
    """A shorter body ends before a second connection has shown its gain."""

    min_piece: int = MIB
    max_piece: int = 8 * MIB
    """The larger a piece, the less it costs that its connection idles until its first byte."""

    stall: float = 0.25
    """Nothing is read ahead of a client that takes no bytes for this long."""

    window: float = 0.01
    """The time that is measured before each decision about the number of connections."""

    min_worth: float = 0.75
    """Part of the expected speed that more connections must reach together to be kept."""

    max_busy: float = 2 / 3
    """Part of the time that the event loop's thread runs, above which the CPU is the limit."""

    max_rate: float = 200 * MIB
    """Bytes per second on one connection that no store limits: S3 gives 50 to 100 MiB/s."""

    client: float = 0.2
    """The time over which a client must be slower than the store to be read ahead less."""

    hold: float = 1.0
    """The time without growth after connections were taken back; doubled each time."""
