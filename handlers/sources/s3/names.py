"""Names of buckets and keys of objects, as S3 allows them."""

import re

MAX_KEY_BYTES = 1024

# botocore accepts only a bucket's name or the ARN of an access point. With path-style addressing,
# the URL of a bucket named ".." would be the root of the store.
_BUCKET = re.compile(
    r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}"
    r"|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:[A-Za-z0-9/:.-]+"
)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


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
