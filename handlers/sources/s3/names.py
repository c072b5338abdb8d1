"""Names of buckets and keys of objects, as S3 allows them."""

import re

MAX_KEY_BYTES = 1024

# A name or the ARN of an access point. botocore accepts no others. With path-style addressing,
# a bucket named ".." would be the root of the store.
_BUCKET = re.compile(
    r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}"
    r"|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:[A-Za-z0-9/:.-]+"
)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


def check_bucket(name: object) -> None:
    """Raise ValueError if `name` is no bucket; the text completes "bucket ..."."""
    if not isinstance(name, str) or not _BUCKET.fullmatch(name):
        raise ValueError("must be the name of a bucket, or the ARN of an access point")


def check_key(key: str) -> None:
    """Raise ValueError if `key` is invalid or unsafe; the text completes "key ...".

    With path-style addressing, a store or a proxy that normalizes paths would find another bucket
    behind "..".
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    if not 0 < size <= MAX_KEY_BYTES:
        raise ValueError(f"must have 1 to {MAX_KEY_BYTES} bytes, not {size}")
    if {".", ".."} & set(key.split("/")) or _CONTROL_CHARACTERS.search(key):
        raise ValueError("must not have '.' or '..' as a segment, nor control characters")
