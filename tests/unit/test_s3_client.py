"""The types of an S3 client that a host passes, for a type checker and at run time."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

from handlers.sources.s3.client import S3Client
from handlers.sources.s3.signed import SignedBucket

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client as RealClient


def as_given(client: RealClient) -> S3Client:
    """Pass the client of types-aiobotocore-s3 as S3Client, for mypy."""
    return client


def test_type_hints_resolve_at_run_time() -> None:
    """`typing.get_type_hints` resolves the types of the S3 client and bucket."""
    assert typing.get_type_hints(SignedBucket)
    assert typing.get_type_hints(S3Client.get_object.fget)  # type: ignore[attr-defined]
