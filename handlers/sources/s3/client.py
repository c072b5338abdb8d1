"""The S3 client of aiobotocore, as far as downspout uses it."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class S3Client(Protocol):
    """An entered S3 client; that of types-aiobotocore-s3 is one for a type checker."""

    @property
    def get_object(self) -> Callable[..., Awaitable[Any]]:
        """Send a GetObject."""

    @property
    def head_object(self) -> Callable[..., Awaitable[Any]]:
        """Send a HeadObject."""

    @property
    def meta(self) -> Any:
        """The client's event handlers, in `meta.events`."""
