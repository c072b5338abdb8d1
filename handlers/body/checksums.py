"""Verification of a body against the checksum that S3 stores of the whole object."""

import hashlib
import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..rfc9110.digests import whole_checksums


class Checksum(Protocol):
    """A checksum that is being computed, as hashlib has it."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add the next bytes."""

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far."""


class _Crc:
    """A cyclic redundancy check as a `Checksum`."""

    def __init__(self, step: Callable[[bytes | memoryview, int], int], size: int) -> None:
        self._step = step
        self._size = size
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _awscrt() -> Any:
    """Return awscrt's checksums, or None if that package is not installed."""
    try:
        return importlib.import_module("awscrt.checksums")
    except ImportError:
        return None


def verifies_all() -> bool:
    """Return whether every checksum of S3's can be computed: some need the package awscrt."""
    return _awscrt() is not None


def _start(name: str) -> Checksum | None:
    """Start a checksum; return None if nothing installed computes it fast."""
    if name == "crc32":
        return _Crc(zlib.crc32, 4)
    if name.startswith("sha"):
        return hashlib.new(name)
    awscrt = _awscrt()
    size = {"crc64nvme": 8, "crc32c": 4}[name]
    return _Crc(getattr(awscrt, name), size) if awscrt else None


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares the bytes of a body with the stored checksum `name`."""

    name: str
    _expected: bytes
    _checksum: Checksum

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._checksum.update(data)

    def matches(self) -> bool:
        """Return whether the bytes so far have the stored checksum."""
        return self._checksum.digest() == self._expected


def start_verifier(stored: Mapping[str, str]) -> Verifier | None:
    """Return the verifier of a whole body; None if it has no checksum that can be computed."""
    for name, expected in whole_checksums(stored).items():
        if checksum := _start(name):
            return Verifier(name, expected, checksum)
    return None
