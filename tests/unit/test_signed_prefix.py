"""Signed prefixes: random paths and prefixes."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.access.signed_url import rejection_reason, sign_url

PAIR = "a:0123456789abcdef"
KEYS = {"a": "0123456789abcdef"}

# Few characters, so that one random path is often the beginning of another.
CHARACTERS = st.sampled_from("ab/*%2F\\+ é\ufffd~")
SEGMENTS = st.text(CHARACTERS, min_size=1, max_size=8)


def reason_for(path: str, query: str) -> str | None:
    """Return why the query is rejected for a percent-decoded path."""
    parameters = parse_qsl(query, keep_blank_values=True)
    return rejection_reason(KEYS, path, parameters, max_lifetime=60)


@given(signed=SEGMENTS, requested=SEGMENTS)
def test_random_signed_prefix_covers_exactly_the_paths_below(signed: str, requested: str) -> None:
    """A prefix signature is valid for a path if, and only if, the path begins with the prefix."""
    path = "/objects/" + requested
    for end in [0, *(at for at, character in enumerate(signed, start=1) if character == "/")]:
        prefix = "/objects/" + signed[:end]
        url = sign_url("/objects/" + quote(signed), PAIR, lifetime=60, prefix=prefix)
        expected = None if path.startswith(prefix) else "signature for another prefix"
        assert reason_for(path, urlsplit(url).query) == expected


@given(signed=SEGMENTS, start=st.sampled_from(["/objects/", "/objects", "/", ""]), rest=SEGMENTS)
def test_random_prefix_is_signed_only_as_a_beginning_of_the_path(
    signed: str, start: str, rest: str
) -> None:
    """`sign_url` signs no prefix without a final slash, beside the path, or of all routes."""
    path = "/objects/" + signed
    beginnings = [path[:end] for end in range(len(path) + 1)]
    for prefix in (start + rest, start, *beginnings):
        is_below_objects = prefix.startswith("/objects/") and prefix in beginnings
        if is_below_objects and prefix.endswith("/"):
            url = sign_url(quote(path), PAIR, lifetime=60, prefix=prefix)
            assert reason_for(path, urlsplit(url).query) is None
        else:
            with pytest.raises(ValueError, match="must be a beginning of"):
                sign_url(quote(path), PAIR, lifetime=60, prefix=prefix)


@given(signed=SEGMENTS, requested=SEGMENTS)
def test_random_signed_object_is_valid_for_its_path_alone(signed: str, requested: str) -> None:
    """An object's signature is valid for no other path, and for no prefix."""
    url = sign_url("/objects/" + quote(signed), PAIR, lifetime=60)
    assert unquote(urlsplit(url).path) == "/objects/" + signed
    query = urlsplit(url).query
    expected = None if requested == signed else "wrong signature"
    assert reason_for("/objects/" + requested, query) == expected
    for prefix in ("/objects/", "/objects/" + signed, "/objects/" + signed.rstrip("*")):
        assert reason_for(prefix, f"{query}&prefix={quote(prefix)}") == "wrong signature"
