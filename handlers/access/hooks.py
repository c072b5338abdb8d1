"""The host's functions `authorize` and `locate`, and how they are called."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from inspect import isawaitable, iscoroutinefunction
from typing import TypeAlias, TypeVar

from starlette.requests import Request

Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]
"""Return whether a request may download; a plain function is called in a thread."""

Location: TypeAlias = str | tuple[str, str] | None
"""A key in the settings' bucket, or a bucket and a key; None if there is no object."""

Locate: TypeAlias = Callable[[int], Location | Awaitable[Location]]
"""Return where the object of a task is; a plain function is called in a thread."""

A = TypeVar("A")
T = TypeVar("T")


async def run_hook(function: Callable[[A], T | Awaitable[T]], threads: Executor, argument: A) -> T:
    """Await an async function, or call a plain one in `threads`; return its result.

    A cancelled caller stops waiting, but its thread is only free when the function returns: so
    there are never more calls than threads.
    """
    if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
        result = function(argument)
    else:
        call = threads.submit(copy_context().run, function, argument)
        result = await asyncio.wrap_future(call)
    return await result if isawaitable(result) else result
