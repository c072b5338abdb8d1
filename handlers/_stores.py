"""The buckets that have been asked for, and how each is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ._s3 import Store

# Far more than a host has; each is some hundred bytes.
MOST = 1000


class Stores:
    """Opens a bucket's store once. A store holds no connection of its own, so none is closed."""

    def __init__(self, default: Store, open_store: Callable[[str], Awaitable[Store]]) -> None:
        self.default = default
        self._open = open_store
        self._stores: dict[str, Store] = {}

    async def of(self, bucket: str | None) -> Store:
        """Return the store of a bucket, None for the settings'."""
        if bucket is None:
            return self.default
        store = self._stores.get(bucket)
        if store is None:
            store = await self._open(bucket)
            if len(self._stores) >= MOST:
                self._stores.clear()
            self._stores[bucket] = store
        return store
