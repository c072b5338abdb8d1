"""Verification of a body against the checksum that S3 stores of the whole object."""

import hashlib
import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..rfc9110.digests import whole_checksums
from .upstream import Chunk


@dataclass(slots=True)
class _Crc:
    """A CRC with the methods of a hashlib object."""

    step: Callable[[Chunk, int], int]
    size: int
    value: int = 0

    def update(self, data: Chunk) -> None:
        self.value = self.step(data, self.value)

    def digest(self) -> bytes:
        return self.value.to_bytes(self.size, "big")


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares a body with the object's stored checksum; `name` is the algorithm."""

    name: str
    expected: bytes
    checksum: Any
    """A hashlib object or a _Crc, for the bytes of the body."""

    def matches(self) -> bool:
        """Return whether the checksum of all bytes so far is the stored one."""
        return bool(self.checksum.digest() == self.expected)


def start_verifier(stored: Mapping[str, str]) -> Verifier | None:
    """Return a verifier of the object's strongest computable checksum; None if there is none."""
    for name, expected in whole_checksums(stored).items():
        if name.startswith("sha"):
            return Verifier(name, expected, hashlib.new(name))
        if module := zlib if name == "crc32" else find_awscrt():
            return Verifier(name, expected, _Crc(getattr(module, name), len(expected)))
    return None


def find_awscrt() -> Any:
    """Return the module for CRC32C and CRC64NVME; None if awscrt is not installed."""
    try:
        return importlib.import_module("awscrt.checksums")
    except ImportError:
        return None
