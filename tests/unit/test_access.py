"""The comparison of tokens and signatures."""

from __future__ import annotations

import pytest

from handlers.access.authorization import token_digests, token_rejection_reason
from handlers.access.signed_url import rejection_reason

TOKENS = ("first-token-of-two", "second/token+of~two==")


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """hmac.compare_digest compares signatures, and each token with all configured tokens."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for token in (*TOKENS, "x", "x" * 300):
        scope = {"headers": [(b"authorization", f"Bearer {token}".encode())]}
        is_valid = token_rejection_reason(token_digests(TOKENS), scope) is None
        assert is_valid == (token in TOKENS)
        assert compared == [(32, 32)] * 2
        compared.clear()
    parameters = [("expires", "2000000000"), ("key", "a"), ("signature", "x")]
    assert rejection_reason({"a": "0" * 16}, "/", parameters, max_lifetime=1)
    assert compared == [(43, 1)]
