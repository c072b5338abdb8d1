"""Bucket names and object keys."""

from __future__ import annotations

import pytest

from handlers.sources.s3.names import check_bucket, check_key


@pytest.mark.parametrize(
    "name",
    [
        "photos",
        "a" * 255,
        "Old_Name.1",
        "...",
        "arn:aws:s3:eu-central-1:123456789012:accesspoint/mine",
        "arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost:op-1:accesspoint:mine",
    ],
)
def test_bucket_name_or_arn_is_accepted(name: str) -> None:
    """A bucket name or an access point ARN that botocore accepts is accepted."""
    check_bucket(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "a" * 256, "photos\n", "arn:aws:s3", "arn:x", None, 5]
)
def test_invalid_bucket_name_raises(name: object) -> None:
    """A name that would address another bucket or none raises ValueError."""
    with pytest.raises(ValueError, match="name of a bucket"):
        check_bucket(name)


@pytest.mark.parametrize("key", ["a", "a/b", "..a", "a..b/c", "ü" * 512, "a" * 1024, "/a", "a//b"])
def test_valid_key_is_accepted(key: str) -> None:
    """A key has up to 1,024 bytes of UTF-8."""
    check_key(key)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "1 to 1024 bytes, not 0"),
        ("a" * 1025, "not 1025"),
        ("ü" * 513, "not 1026"),
        ("..", "segment"),
        ("a/../b", "segment"),
        ("./a", "segment"),
        ("a\n", "control"),
        ("a\x7f", "control"),
        ("\udcff", "UTF-8"),
    ],
)
def test_invalid_key_raises(key: str, problem: str) -> None:
    """A key that is too long or has `..` segments or control characters raises ValueError."""
    with pytest.raises(ValueError, match=problem):
        check_key(key)
