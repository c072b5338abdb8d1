"""The host's hooks `authorize` and `locate`: their types, and `run_hook`, which calls them."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from inspect import isawaitable, iscoroutinefunction
from typing import TypeAlias, TypeVar

from starlette.requests import Request

Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]
"""Takes a request, returns whether it may download; a plain function runs in a thread."""

Location: TypeAlias = str | tuple[str, str] | None
"""A key in the settings' bucket, or a bucket and a key; None if there is no object."""

Locate: TypeAlias = Callable[[int], Location | Awaitable[Location]]
"""Takes a task's number, returns where its image is; a plain function runs in a thread."""

A = TypeVar("A")
T = TypeVar("T")


async def run_hook(threads: Executor, function: Callable[[A], T | Awaitable[T]], argument: A) -> T:
    """Await an async function, or call a plain one in `threads`; return its result.

    If the caller is cancelled, the plain function still runs to its end and occupies its thread.
    Further calls wait for a free thread.
    """
    if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
        result = function(argument)
    else:
        call = threads.submit(copy_context().run, function, argument)
        result = await asyncio.wrap_future(call)
    return await result if isawaitable(result) else result
