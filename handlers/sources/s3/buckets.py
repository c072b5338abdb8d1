"""The buckets in use, each opened once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .bucket import Bucket
from .names import check_bucket


@dataclass(slots=True)
class Buckets:
    """Opens each bucket once. A bucket holds no connection of its own, so nothing closes it."""

    default: Bucket
    """The bucket of the settings."""

    open_bucket: Callable[[str], Awaitable[Bucket]]

    # More buckets than a host is likely to have; each costs some hundred bytes.
    max_buckets: int = 1000

    _opened: dict[str, Bucket] = field(default_factory=dict, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def get(self, name: str | None) -> Bucket:
        """Return a bucket, the settings' one for None; raises ValueError for an invalid name."""
        if name is None:
            return self.default
        check_bucket(name)
        async with self._lock:
            if name not in self._opened:
                if len(self._opened) >= self.max_buckets:
                    self._opened.clear()
                self._opened[name] = await self.open_bucket(name)
            return self._opened[name]
