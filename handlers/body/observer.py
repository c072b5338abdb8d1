"""What is told about an upstream while a body is fetched."""

from typing import Protocol


class Observer(Protocol):
    """Is told of failures and repairs of one download's upstream."""

    def upstream_failed(self, error: BaseException) -> None:
        """Note a failed request or a broken body."""

    def body_resumed(self) -> None:
        """Note a body that was re-opened."""


class _NoObserver:
    def upstream_failed(self, error: BaseException) -> None: ...
    def body_resumed(self) -> None: ...


NO_OBSERVER = _NoObserver()
