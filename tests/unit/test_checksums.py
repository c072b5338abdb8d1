"""S3 checksums as Repr-Digest, and the verifier of a body."""

from __future__ import annotations

import base64
import hashlib
import importlib

import pytest

from handlers.body import checksums
from handlers.body.checksums import start_verifier
from handlers.rfc9110.digests import repr_digest

# The check values of the catalogue of CRC algorithms, over "123456789".
NINE = b"123456789"


KNOWN = {
    "crc32": (0xCBF43926).to_bytes(4, "big"),
    "crc32c": (0xE3069283).to_bytes(4, "big"),
    "crc64nvme": (0xAE8B14860A799888).to_bytes(8, "big"),
    "sha1": hashlib.sha1(NINE).digest(),
    "sha256": hashlib.sha256(NINE).digest(),
    "sha512": hashlib.sha512(NINE).digest(),
}


def checksum_headers(name: str, digest: bytes, **others: str) -> dict[str, str]:
    return {f"x-amz-checksum-{name}": base64.b64encode(digest).decode(), **others}


@pytest.mark.parametrize("name", KNOWN)
def test_each_s3_algorithm_is_verified(name: str) -> None:
    """The verifier accepts the stored body in any chunks, and rejects another body."""
    right = start_verifier(checksum_headers(name, KNOWN[name]))
    wrong = start_verifier(checksum_headers(name, KNOWN[name]))
    assert right is not None
    assert wrong is not None
    for piece in (NINE[:4], NINE[4:], b""):
        right.checksum.update(piece)
    wrong.checksum.update(NINE[::-1])
    assert right.matches()
    assert not wrong.matches()


def test_awscrt_algorithms_without_awscrt_are_not_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without awscrt, the verifier uses another checksum of the object, if there is one."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    both = checksum_headers("crc64nvme", KNOWN["crc64nvme"]) | checksum_headers(
        "crc32", KNOWN["crc32"]
    )
    verifier = start_verifier(both)
    assert verifier is not None
    assert verifier.name == "crc32"
    assert start_verifier(checksum_headers("crc64nvme", KNOWN["crc64nvme"])) is None
    assert checksums.find_awscrt() is None


def test_repr_digest_uses_rfc_9530_algorithm_names() -> None:
    """RFC 9530 has names for the SHA algorithms and CRC32C, and for no other CRC of S3."""
    hello = hashlib.sha256(b'{"hello": "world"}\n').digest()  # the example of its appendix B.1
    expected = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert repr_digest(checksum_headers("sha256", hello)) == expected
    assert repr_digest(checksum_headers("crc32c", KNOWN["crc32c"])) == "crc32c=:4waSgw==:"
    assert repr_digest(checksum_headers("crc32", KNOWN["crc32"])) is None
    assert repr_digest({}) is None


@pytest.mark.parametrize(
    "headers",
    [
        checksum_headers("sha256", KNOWN["sha256"], **{"x-amz-checksum-type": "COMPOSITE"}),
        {"x-amz-checksum-sha256": base64.b64encode(KNOWN["sha256"]).decode() + "-3"},
        {"x-amz-checksum-sha256": "not base64"},
        {"x-amz-checksum-sha256": "é"},
        checksum_headers("sha256", b"short"),
    ],
)
def test_unusable_checksum_is_neither_sent_nor_verified(headers: dict[str, str]) -> None:
    """A composite or invalid checksum does not describe the whole object."""
    assert repr_digest(headers) is None
    assert start_verifier(headers) is None
