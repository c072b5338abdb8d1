"""Functions of a host's, plain or async."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TypeVar

from anyio.to_thread import run_sync

A = TypeVar("A")
T = TypeVar("T")


async def called(function: Callable[[A], T | Awaitable[T]], argument: A) -> T:
    """Return what a function returns; a plain one is called in a thread, where it may wait."""
    is_async = iscoroutinefunction(function) or iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )
    found = function(argument) if is_async else await run_sync(function, argument)
    return await found if isawaitable(found) else found
