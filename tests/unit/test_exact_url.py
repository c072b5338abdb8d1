"""The URL that an upstream is asked for."""

from __future__ import annotations

import pytest

from handlers.sources.http import exact_url


@pytest.mark.parametrize(
    ("given", "host", "target"),
    [
        ("http://h.test/%2F%3A%7e%C3%a4?%26&a=%27'", "h.test", "/%2F%3A%7e%C3%a4?%26&a=%27'"),
        ("http://h.test:80/a/../b//c/.", "h.test", "/a/../b//c/."),
        ("https://user:p%40ss@H.test:8443/a;b,c@d", "h.test", "/a;b,c@d"),
        ("http://bücher.test/ä", "xn--bcher-kva.test", "/%C3%A4"),
        ("http://[::1]:81/%5B", "::1", "/%5B"),
        ("http://h.test/a b\x7f", "h.test", "/a%20b%7F"),
        ("http://h.test/%zz%", "h.test", "/%zz%"),
        ("http://h.test?x", "h.test", "/?x"),
        ("http://h.test#x", "h.test", "/"),
    ],
)
def test_path_and_query_stay_as_given(given: str, host: str, target: str) -> None:
    """Only the host is normalized, and only characters that no URL may have are encoded."""
    url = exact_url(given)
    assert (url.raw_host, url.raw_path_qs) == (host, target)


@pytest.mark.parametrize("given", ["http://[", "http://h.test:99999999/", "http://h.test/\ud800"])
def test_invalid_url_raises_value_error(given: str) -> None:
    """What cannot be a URL, or not be encoded in UTF-8, is an error."""
    with pytest.raises(ValueError, match=r"."):
        exact_url(given)
