"""Functions of a host's, plain or async."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from inspect import isawaitable, iscoroutinefunction
from typing import TypeAlias, TypeVar

Location: TypeAlias = str | tuple[str, str] | None
"""A key in the settings' bucket; a bucket and a key; None where there is no object."""

Locate: TypeAlias = Callable[[int], Location | Awaitable[Location]]
"""Return where the image of a task is; a plain function is called in a thread."""

A = TypeVar("A")
T = TypeVar("T")


async def run_hook(function: Callable[[A], T | Awaitable[T]], threads: Executor, argument: A) -> T:
    """Return what a function returns; a plain one is called in one of `threads`.

    Whoever waits may be cancelled; its thread is free again when the function has returned, so
    that there are never more of them.
    """
    is_async = iscoroutinefunction(function) or iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )
    if is_async:
        found = function(argument)
    else:
        running = threads.submit(copy_context().run, function, argument)
        found = await asyncio.wrap_future(running)
    return await found if isawaitable(found) else found
