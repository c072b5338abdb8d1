"""Which stored headers go out: pure functions, no server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.answers.headers import attachment, download_headers


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
        'video/mp4; codecs="avc1"; x=1',
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
        "image/foo+xml",
        "audio/x+xml",
    ],
)
def test_type_that_a_browser_could_run_goes_out_as_a_file(stored: str) -> None:
    """What could run as a page of this site is a file to save, in a sandbox."""
    sent = headers_of(content_type=stored)
    assert sent["content-disposition"] == "attachment"
    assert sent["content-security-policy"] == "sandbox; default-src 'none'"
    assert sent["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "stored",
    [
        "image/png;x, text/html",
        "text/plain;,text/html",
        "image/png; charset=utf-8;,text/html",
        'video/mp4;a=",text/html"',
        "image/png;",
        "html",
        "image/",
        "/png",
        "image/png\r\nx: y",
        "i mage/png",
        "image/\xe9",
    ],
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


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("", "attachment"),
        ("a.jpg", 'attachment; filename="a.jpg"'),
        ("a b.jpg", 'attachment; filename="a b.jpg"'),
        ("ä.jpg", "attachment; filename=\"_.jpg\"; filename*=UTF-8''%C3%A4.jpg"),
        ('a"b', "attachment; filename=\"a_b\"; filename*=UTF-8''a%22b"),
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("C:\\temp\\a.jpg", 'attachment; filename="a.jpg"'),
        ("a\r\nset-cookie: x", 'attachment; filename="aset-cookie: x"'),
        ("..", "attachment"),
        ("gpj.\u202eexe", 'attachment; filename="gpj.exe"'),
        ("\ud800", "attachment"),
        ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
    ],
)
def test_name_to_save_under(name: str, disposition: str) -> None:
    """A name goes out in a form for old clients and in one for all scripts; never as a path."""
    assert attachment(name) == disposition


@given(st.text(max_size=300))
def test_any_name_makes_a_header(name: str) -> None:
    """No name makes a header that could not be written, or hold another parameter."""
    value = attachment(name)
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') in (0, 2)
    assert len(value) < 3000


def test_stored_disposition() -> None:
    """An inert object's own disposition goes out; one that could run is always an attachment."""
    inline, saved = 'inline; filename="a"', 'attachment; filename="a"'
    assert headers_of(content_disposition=inline)["content-disposition"] == inline
    page = headers_of(content_type="text/html", content_disposition=inline)
    assert page["content-disposition"] == "attachment"
    page = headers_of(content_type="text/html", content_disposition=saved)
    assert page["content-disposition"] == saved
    assert "content-disposition" not in headers_of(content_disposition="inline\r\nx: y")


def test_metadata_goes_out_where_it_is_asked_for() -> None:
    """User metadata is sent by name alone."""
    stored = {"x-amz-meta-owner": "me", "x-amz-meta-secret": "s", "x-amz-meta-odd": "a\x00"}
    names = ("owner", "odd", "missing")
    sent = download_headers(stored, default_type="image/jpeg", metadata_names=names)
    assert {name for name in sent if name.startswith("x-amz")} == {"x-amz-meta-owner"}


def test_cache_control_of_objects_without_one() -> None:
    """The setting is for objects that say nothing themselves."""
    for stored, sent in (({}, "max-age=5"), ({"cache-control": "no-store"}, "no-store")):
        headers = download_headers(
            stored, default_type="image/jpeg", default_cache_control="max-age=5"
        )
        assert headers["cache-control"] == sent
