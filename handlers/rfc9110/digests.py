"""Checksums of whole objects: as S3 stores them, and as Repr-Digest (RFC 9530)."""

import base64
from collections.abc import Mapping
from contextlib import suppress

# Bytes of each checksum, by its name in the header x-amz-checksum-NAME; the strongest first.
_SIZES = {"sha512": 64, "sha256": 32, "sha1": 20, "crc64nvme": 8, "crc32c": 4, "crc32": 4}
_HEADERS = {f"x-amz-checksum-{name}": name for name in _SIZES}

# Names in the registry of RFC 9530, which has no other CRC.
_DIGEST_KEYS = {"sha512": "sha-512", "sha256": "sha-256", "sha1": "sha", "crc32c": "crc32c"}


def whole_checksums(stored: Mapping[str, str]) -> dict[str, bytes]:
    """Return the checksums of the whole object in its stored headers, by name, strongest first.

    A checksum of a multipart upload is left out: it is one of the parts' checksums.
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
    """Return the Repr-Digest of an object with these stored headers, or None."""
    members = [
        f"{_DIGEST_KEYS[name]}=:{base64.b64encode(checksum).decode()}:"
        for name, checksum in whole_checksums(stored).items()
        if name in _DIGEST_KEYS
    ]
    return ", ".join(members) or None
