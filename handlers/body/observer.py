"""The observer of an upstream: it counts failures and resumed bodies."""

from typing import Protocol


class Observer(Protocol):
    """Counts what goes wrong with the upstream of one download."""

    def upstream_failed(self, error: BaseException) -> None:
        """Count a failed request or a broken body, whether or not it is retried."""

    def body_resumed(self) -> None:
        """Count a broken body that goes on at its next byte."""


class _NoObserver:
    def upstream_failed(self, error: BaseException) -> None:
        pass

    def body_resumed(self) -> None:
        pass


NO_OBSERVER = _NoObserver()
