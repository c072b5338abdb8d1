"""The buckets that have been asked for, and how each is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from .bucket import Store

# Far more than a host has; each is some hundred bytes.
MOST = 1000

# A name or an ARN; "..", path-style, would be what lies above all buckets.
_BUCKET = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}|arn:[A-Za-z0-9:/._-]{1,255}")


class Buckets:
    """Opens a bucket's store once. A store holds no connection of its own, so none is closed."""

    def __init__(self, default: Store, open_store: Callable[[str], Awaitable[Store]]) -> None:
        self.default = default
        self._open = open_store
        self._opening = asyncio.Lock()
        self._stores: dict[str, Store] = {}

    async def get(self, bucket: str | None) -> Store:
        """Return a bucket's store, None for the settings'; raises ValueError for what is none."""
        if bucket is None:
            return self.default
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r} is the name of no bucket")
        async with self._opening:
            if bucket not in self._stores:
                if len(self._stores) >= MOST:
                    self._stores.clear()
                self._stores[bucket] = await self._open(bucket)
            return self._stores[bucket]
