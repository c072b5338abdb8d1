"""Names of buckets, keys and key prefixes of objects, as S3 allows them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_KEY_BYTES = 1024

# botocore accepts only a bucket's name or the ARN of an access point. With path-style addressing,
# the URL of a bucket named ".." would be the root of the store.
_BUCKET = re.compile(
    r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}"
    r"|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:[A-Za-z0-9/:.-]+"
)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")

# Entries of S3_OBJECTS; see `parse_roots`.
_UNNAMED_ROOT = re.compile("/|[^/=][^=]*/")
_NAMED_ROOT = re.compile(
    "([A-Za-z0-9._-]+)=(arn:.+accesspoint[:/][^/]+|[^/]+)/((?:[^/].*/)?)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ObjectRoot:
    """A bucket, and the prefix of the keys in it, for an entry of S3_OBJECTS."""

    bucket: str | None
    """None is the bucket of S3_IMAGE_BUCKET."""

    prefix: str
    """Empty for the whole bucket, else with a final slash."""


def check_bucket(name: object) -> None:
    """Raise ValueError("must be ...") if `name` is no bucket name or ARN."""
    if not isinstance(name, str) or not _BUCKET.fullmatch(name):
        raise ValueError("must be the name of a bucket, or the ARN of an access point")


def check_key(key: str) -> None:
    """Raise ValueError("must ...") if `key` is invalid or unsafe in a URL.

    With path-style addressing, a ".." in the key would lead to another bucket if the store or a
    proxy normalizes paths.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    if not 0 < size <= MAX_KEY_BYTES:
        raise ValueError(f"must have 1 to {MAX_KEY_BYTES} bytes, not {size}")
    if {".", ".."} & set(key.split("/")) or _CONTROL_CHARACTERS.search(key):
        raise ValueError("must not have '.' or '..' as a path segment, nor control characters")


@lru_cache(maxsize=16)  # Each request for an object parses them.
def parse_roots(entries: tuple[str, ...]) -> Mapping[str, ObjectRoot]:
    """Return the roots in the entries of S3_OBJECTS, by name; raise ValueError.

    An entry is `NAME=BUCKET/` or `NAME=BUCKET/PREFIX/`. A single entry may also be `PREFIX/`
    or `/`; its name is then "".
    """
    roots: dict[str, ObjectRoot] = {}
    for entry in entries:
        try:
            name, root = _parse_root(entry)
        except ValueError as error:
            raise ValueError(f"has the entry {entry!r}, which {error}") from None
        if name in roots or (not name and len(entries) > 1):
            raise ValueError(f"has the entry {entry!r}, which must have a NAME= of its own")
        roots[name] = root
    return roots


def _parse_root(entry: str) -> tuple[str, ObjectRoot]:
    named = _NAMED_ROOT.fullmatch(entry)
    if not named and not _UNNAMED_ROOT.fullmatch(entry):
        raise ValueError("must be /, PREFIX/ without a slash before it, or NAME=BUCKET/PREFIX/")
    name, bucket, prefix = named.groups() if named else ("", None, entry.removeprefix("/"))
    for key in filter(None, (name, prefix)):
        check_key(key)
    if named:
        check_bucket(bucket)
    return name, ObjectRoot(bucket, prefix)
