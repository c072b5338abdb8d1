"""Checksums of whole objects: S3's x-amz-checksum headers, and Repr-Digest (RFC 9530)."""

import base64
from collections.abc import Mapping
from contextlib import suppress

# Size in bytes of each NAME in the header x-amz-checksum-NAME; the strongest first.
_SIZES = {"sha512": 64, "sha256": 32, "sha1": 20, "crc64nvme": 8, "crc32c": 4, "crc32": 4}
_HEADERS = {f"x-amz-checksum-{name}": name for name in _SIZES}

# The registry of RFC 9530 has names for these algorithms, and none for the other CRCs.
_DIGEST_KEYS = {"sha512": "sha-512", "sha256": "sha-256", "sha1": "sha", "crc32c": "crc32c"}


def whole_checksums(stored: Mapping[str, str]) -> dict[str, bytes]:
    """Return the whole object's checksums by algorithm, strongest first, from S3's headers.

    A checksum of type COMPOSITE is left out: it is made of the checksums of uploaded parts.
    """
    checksums: dict[str, bytes] = {}
    if stored.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return checksums
    for header, name in _HEADERS.items():
        if header in stored:
            with suppress(ValueError):
                checksum = base64.b64decode(stored[header], validate=True)
                if len(checksum) == _SIZES[name]:
                    checksums[name] = checksum
    return checksums


def repr_digest(stored: Mapping[str, str]) -> str | None:
    """Return the Repr-Digest header for an object, from S3's headers; None without a checksum."""
    members = [
        f"{_DIGEST_KEYS[name]}=:{base64.b64encode(checksum).decode()}:"
        for name, checksum in whole_checksums(stored).items()
        if name in _DIGEST_KEYS
    ]
    return ", ".join(members) or None
