"""Objects whose bytes store and client compute from task, version and position."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Self

PAGE = 64 * 1024
_STAMP = 64
_NOISE = hashlib.shake_256(b"downspout").digest(2 << 20)

# The last ten digits of a task's id are the size of its object, so both sides know it.
_SIZES = 10**10

_EPOCH = 1_767_225_600  # 2026-01-01: long enough ago for a date to be a strong validator


def task_of(number: int, size: int) -> int:
    """Return the id of a task whose object has `size` bytes."""
    return number * _SIZES + size


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the object of a task."""

    task_id: int
    number: int

    @classmethod
    def of_etag(cls, etag: str) -> Self | None:
        found = re.fullmatch(r'"([0-9]+)-([0-9]+)"', etag)
        return cls(int(found[1]), int(found[2])) if found else None

    @property
    def size(self) -> int:
        return self.task_id % _SIZES

    @property
    def etag(self) -> str:
        return f'"{self.task_id}-{self.number}"'

    @property
    def last_modified(self) -> str:
        return formatdate(_EPOCH + self.number, usegmt=True)

    def pages(self, first: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `first` to before `end`."""
        for index in range(first // PAGE, -(-end // PAGE)):
            begin = index * PAGE
            yield self._page(index)[max(first - begin, 0) : end - begin]

    def sha256(self, length: int) -> str:
        """Return the digest of the first `length` bytes."""
        digest = hashlib.sha256()
        for page in self.pages(0, length):
            digest.update(page)
        return digest.hexdigest()

    def _page(self, index: int) -> bytes:
        # A stamp on every page, so that no page is like another of any object or version; noise
        # from a place that moves with all three, so that no two are alike between their stamps.
        stamp = f"{self.task_id} {self.number} {index} ".encode().ljust(_STAMP)
        start = (self.task_id * 31 + self.number * 7919 + index * 104_729) % (1 << 20)
        return stamp + _NOISE[start : start + PAGE - _STAMP]
