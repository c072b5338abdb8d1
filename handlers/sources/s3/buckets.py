"""The buckets in use, each opened once."""

import asyncio
from collections.abc import Awaitable, Callable

from .bucket import Bucket
from .names import check_bucket

# More buckets than a host is likely to have; each costs some hundred bytes.
MAX_BUCKETS = 1000


class Buckets:
    """Opens each bucket once. A bucket holds no connection of its own, so nothing closes it."""

    def __init__(
        self,
        default: Bucket,
        open_bucket: Callable[[str], Awaitable[Bucket]],
        *,
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        self.default = default
        self._open = open_bucket
        self._max_buckets = max_buckets
        self._lock = asyncio.Lock()
        self._opened: dict[str, Bucket] = {}

    async def get(self, name: str | None) -> Bucket:
        """Return a bucket, the settings' one for None; raises ValueError for an invalid name."""
        if name is None:
            return self.default
        check_bucket(name)
        async with self._lock:
            if name not in self._opened:
                if len(self._opened) >= self._max_buckets:
                    self._opened.clear()
                self._opened[name] = await self._open(name)
            return self._opened[name]
