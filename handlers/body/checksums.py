"""Checksums that S3 has of whole objects: told on (RFC 9530), and verified while bodies stream."""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Sum(Protocol):
    """A checksum that is being computed."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes in."""

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far."""


class _Crc:
    """A cyclic redundancy check of `size` bytes, as an object like hashlib's."""

    def __init__(self, step: Callable[[bytes | memoryview, int], int], size: int) -> None:
        self._step = step
        self._size = size
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


@dataclass(frozen=True, slots=True)
class _Algorithm:
    size: int
    start: Callable[[], Sum | None]
    """None where nothing here can compute it fast."""

    digest_key: str | None = None
    """Its name in RFC 9530's registry."""


def _crt(name: str, size: int) -> Callable[[], Sum | None]:
    """Return how to start a check that the package awscrt has, where it is installed."""

    def start() -> Sum | None:
        module = _awscrt()
        return _Crc(getattr(module, name), size) if module else None

    return start


def _awscrt() -> Any:
    try:
        return importlib.import_module("awscrt.checksums")
    except ImportError:
        return None


# By their names in x-amz-checksum-NAME, the strongest first.
_ALGORITHMS = {
    "sha512": _Algorithm(64, hashlib.sha512, "sha-512"),
    "sha256": _Algorithm(32, hashlib.sha256, "sha-256"),
    "sha1": _Algorithm(20, hashlib.sha1, "sha"),
    "crc64nvme": _Algorithm(8, _crt("crc64nvme", 8)),
    "crc32c": _Algorithm(4, _crt("crc32c", 4), "crc32c"),
    "crc32": _Algorithm(4, lambda: _Crc(zlib.crc32, 4)),
}

_HEADERS = {f"x-amz-checksum-{name}": name for name in _ALGORITHMS}


class Verifier:
    """Compares the bytes of a body with the checksum that is stored of them."""

    def __init__(self, name: str, wanted: bytes, running: Sum) -> None:
        self.name = name
        self._wanted = wanted
        self._running = running

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes in."""
        self._running.update(data)

    def matches(self) -> bool:
        """Return whether the bytes so far are those that were stored."""
        return self._running.digest() == self._wanted


def start_verifier(stored: Mapping[str, str]) -> Verifier | None:
    """Return what verifies a whole body; None where no checksum of it is known or computable."""
    for name, wanted in _checksums_of(stored).items():
        if running := _ALGORITHMS[name].start():
            return Verifier(name, wanted, running)
    return None


def repr_digest(stored: Mapping[str, str]) -> str | None:
    """Return the Repr-Digest of an object by its stored headers, where there is one."""
    members = [
        f"{key}=:{base64.b64encode(wanted).decode()}:"
        for name, wanted in _checksums_of(stored).items()
        if (key := _ALGORITHMS[name].digest_key)
    ]
    return ", ".join(members) or None


def verifies_all() -> bool:
    """Return whether every checksum of S3's can be computed here."""
    return _awscrt() is not None


def _checksums_of(stored: Mapping[str, str]) -> dict[str, bytes]:
    """Return the checksums of the whole object: those of uploads in parts are sums of sums."""
    if stored.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return {}
    found = {
        name: _decoded(stored[header]) for header, name in _HEADERS.items() if header in stored
    }
    return {name: sum_ for name, sum_ in found.items() if len(sum_) == _ALGORITHMS[name].size}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
