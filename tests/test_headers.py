"""Which stored headers go out: pure functions, no server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers._headers import download_headers


def headers_of(**stored: str) -> dict[str, str]:
    names = {name.replace("_", "-"): value for name, value in stored.items()}
    return download_headers(names, length=5, default_type="image/jpeg")


def test_allowed_headers_go_out_as_they_are() -> None:
    """What describes the bytes goes out unchanged."""
    stored = {
        "etag": '"a"',
        "last-modified": "Mon, 23 Nov 2026 08:00:00 GMT",
        "cache-control": "max-age=60, public",
        "expires": "0",
        "content-encoding": "gzip",
        "content-language": "de",
        "content-type": "image/png",
    }
    sent = download_headers(stored, length=5, default_type="image/jpeg")
    assert {name: sent[name] for name in stored} == stored
    assert sent["content-length"] == "5"


@pytest.mark.parametrize(
    "name",
    ["x-amz-id-2", "server", "set-cookie", "connection", "transfer-encoding", "content-md5"],
)
def test_other_headers_stay_here(name: str) -> None:
    """What is the store's or the connection's own does not go out."""
    assert name not in download_headers({name: "x"}, length=5, default_type="image/jpeg")


@pytest.mark.parametrize("value", ["", " ", "a\r\nb: c", "a\nb", "a\x00b", "caf\xe9", " a", "a "])
def test_value_that_could_be_no_header_is_dropped(value: str) -> None:
    """A stored value that would break the answer is left out of it."""
    assert "cache-control" not in headers_of(cache_control=value)


@pytest.mark.parametrize("stored", ["", "binary/octet-stream"])
def test_object_without_a_type_has_the_default(stored: str) -> None:
    """S3's own stand-in for no type counts as none."""
    assert headers_of(content_type=stored)["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    "stored",
    [
        "image/png",
        "IMAGE/PNG",
        "image/webp",
        "audio/mpeg",
        "video/mp4",
        "application/pdf",
        "application/octet-stream",
        "text/plain",
        "text/plain; charset=utf-8",
    ],
)
def test_inert_type_goes_out_inline(stored: str) -> None:
    """What no browser runs is shown as what it is, and never sniffed for something else."""
    sent = headers_of(content_type=stored)
    assert sent["content-type"] == stored
    assert sent["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in sent


@pytest.mark.parametrize(
    "stored",
    [
        "text/html",
        "text/html; charset=utf-8",
        "TEXT/HTML",
        "image/svg+xml",
        "image/svg",
        "application/xhtml+xml",
        "text/xml",
        "application/javascript",
        "text/plain-text",
        "multipart/x-mixed-replace",
        "application/pdf+html",
    ],
)
def test_type_that_a_browser_could_run_goes_out_as_a_file(stored: str) -> None:
    """What could run as a page of this site is a file to save, in a sandbox."""
    sent = headers_of(content_type=stored)
    assert sent["content-disposition"] == "attachment"
    assert sent["content-security-policy"] == "sandbox; default-src 'none'"
    assert sent["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "stored", ["html", "image/", "/png", "image/png\r\nx: y", "i mage/png", "image/\xe9"]
)
def test_type_that_is_none_is_unknown_bytes(stored: str) -> None:
    """A stored type that is no media type is not repeated."""
    sent = headers_of(content_type=stored)
    assert sent["content-type"] == "application/octet-stream"
    assert sent["content-disposition"] == "attachment"


@given(
    st.dictionaries(
        st.sampled_from(["etag", "cache-control", "content-type", "expires", "content-language"]),
        st.text(max_size=40),
    )
)
def test_whatever_is_stored_can_be_sent(stored: dict[str, str]) -> None:
    """No stored text makes a header that a server would refuse to write."""
    for value in download_headers(stored, length=5, default_type="image/jpeg").values():
        assert value.isascii()
        assert value.isprintable() or "\t" in value
        assert value == value.strip()
