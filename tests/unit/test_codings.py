"""Content-Encoding headers."""

from __future__ import annotations

import pytest

from handlers.rfc9110.codings import content_codings


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("", ()),
        ("gzip", ("gzip",)),
        ("gzip ,\tbr", ("gzip", "br")),
        ("identity", ()),
        ("AWS-Chunked,gzip", ("gzip",)),
        ("gzip,", None),
        ("gzip;q=1", None),
        ("gzip\r\n", None),
        (" ", None),
    ],
)
def test_content_codings_are_parsed(header: str, codings: tuple[str, ...] | None) -> None:
    """`identity` and `aws-chunked` are no codings of the body; an invalid header is None."""
    assert content_codings(header) == codings
