"""Cancels a download's task because of a gone client, a stalled client, or a drain."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

StopReason: TypeAlias = Literal["client_gone", "client_stalled", "drained"]


class StrayCancellation(RuntimeError):
    """A CancelledError from the work, although nothing cancelled its task."""


@dataclass(slots=True)
class Interrupt:
    """Cancels the task of one download; `run` then returns instead of raising.

    The server or the host may cancel the same task. asyncio only counts all cancellations
    (Task.cancelling), so this class counts its own, and uncancels them at the end of `run`.
    """

    reason: StopReason | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False
    """Whether the whole answer is sent; `stop` then does nothing."""

    _task: asyncio.Task[Any] | None = None
    _own: int = 0

    async def run(self, work: Awaitable[None]) -> None:
        """Await `work`; return early if `stop` cancels it.

        Raises the exceptions of `work`, CancelledError if the server or host cancels the task,
        StrayCancellation if `work` raises CancelledError without any cancellation.
        """
        # No task group: it and its scopes would take a tenth of the time of a small download.
        task = self._task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
        before = task.cancelling()
        try:
            await work
        except asyncio.CancelledError as error:
            if task.cancelling() > before + self._own:
                raise
            if not self._own:
                raise StrayCancellation("CancelledError without a cancelled task") from error
        finally:
            self._task = None
            for _ in range(self._own):
                task.uncancel()
            self._own = 0

    def stop(self, reason: StopReason) -> bool:
        """Cancel the work; return False if it has ended or was stopped before."""
        if self.reason is not None or self.is_over or self._task is None:
            return False
        self.reason = reason
        self.stopped.set()
        # In the loop's next iteration, so that an application that awaits `stopped` returns first.
        asyncio.get_running_loop().call_soon(self.cancel)
        return True

    def cancel(self) -> None:
        """Cancel the task; call it again if the work ignores the CancelledError."""
        if self._task is not None:
            self._own += 1
            self._task.cancel()
