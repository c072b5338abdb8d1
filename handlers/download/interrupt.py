"""Stopping a download's task for a reason, and telling our cancellation from others'."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

StopReason: TypeAlias = Literal["client_gone", "client_stalled", "drained"]


class StrayCancellation(RuntimeError):
    """A CancelledError that neither this download nor the server has caused."""


@dataclass(slots=True)
class Interrupt:
    """Cancels the task of one download, and takes its own cancellations back.

    The server and the application around this one cancel the same task. asyncio only counts
    cancellations (Task.cancelling), so this class counts its own.
    """

    reason: StopReason | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[Any] | None = None
    _own: int = 0
    _is_over: bool = False

    async def run(self, work: Awaitable[None]) -> None:
        """Await `work`; return early where `stop` ended it.

        Raises what `work` raises, CancelledError for a cancellation by others, StrayCancellation.
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
                raise StrayCancellation("cancelled by neither server nor client") from error
        finally:
            self._task = None
            for _ in range(self._own):
                task.uncancel()
            self._own = 0

    def stop(self, reason: StopReason) -> bool:
        """Cancel the work; return False where it is over, or stopped already."""
        if self.reason is not None or self._is_over or self._task is None:
            return False
        self.reason = reason
        self.stopped.set()
        # In the next turn of the loop: an application that waits for `stopped` returns first.
        asyncio.get_running_loop().call_soon(self.cancel)
        return True

    def cancel(self) -> None:
        """Cancel the task, also once more where the work swallowed an earlier cancellation."""
        if self._task is not None:
            self._own += 1
            self._task.cancel()

    def finish(self) -> None:
        """Let the work end undisturbed: the client has the whole answer."""
        self._is_over = True
