"""Verification of a body against the checksum that S3 stores of the whole object."""

import hashlib
import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..rfc9110.digests import whole_checksums


class _Crc:
    """A cyclic redundancy check with the interface of hashlib's objects."""

    def __init__(self, step: Callable[[bytes | memoryview, int], int], size: int) -> None:
        self._step = step
        self._size = size
        self._value = 0

    def update(self, data: bytes | memoryview) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares the bytes of a body with the stored checksum `name`."""

    name: str
    _expected: bytes
    _checksum: Any

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._checksum.update(data)

    def matches(self) -> bool:
        """Return whether the bytes so far have the stored checksum."""
        return bool(self._checksum.digest() == self._expected)


def start_verifier(stored: Mapping[str, str]) -> Verifier | None:
    """Return a verifier of the whole object; None without a checksum that can be computed."""
    for name, expected in whole_checksums(stored).items():
        if checksum := _start(name, len(expected)):
            return Verifier(name, expected, checksum)
    return None


def verifies_all() -> bool:
    """Return whether all checksums of S3 can be computed: some need the package awscrt."""
    return _awscrt() is not None


def _start(name: str, size: int) -> Any:
    if name.startswith("sha"):
        return hashlib.new(name)
    module = zlib if name == "crc32" else _awscrt()
    return _Crc(getattr(module, name), size) if module else None


def _awscrt() -> Any:
    try:
        return importlib.import_module("awscrt.checksums")
    except ImportError:
        return None
