"""The response headers of a download, computed from the stored headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.answers.headers import attachment, download_headers, private_cache_control
from handlers.body.upstream import Upstream


def headers_for(stored: Mapping[str, str], **options: Any) -> dict[str, str]:
    upstream = Upstream(headers=stored, length=None)
    return download_headers(upstream, default_type="image/jpeg", **options)


def sent_headers(**stored: str) -> dict[str, str]:
    return headers_for({name.replace("_", "-"): value for name, value in stored.items()})


def test_allowed_headers_are_sent_unchanged() -> None:
    """Headers that describe the stored bytes are sent unchanged."""
    stored = {
        "etag": '"a"',
        "last-modified": "Mon, 23 Nov 2026 08:00:00 GMT",
        "cache-control": "max-age=60, public",
        "expires": "0",
        "content-encoding": "gzip",
        "content-language": "de",
        "content-type": "image/png",
    }
    sent = headers_for(stored)
    assert {name: sent[name] for name in stored} == stored


@pytest.mark.parametrize(
    "name",
    ["x-amz-id-2", "server", "set-cookie", "connection", "transfer-encoding", "content-md5"],
)
def test_other_headers_are_not_sent(name: str) -> None:
    """Headers of the store itself and of its connection are not sent."""
    assert name not in headers_for({name: "x"})


@pytest.mark.parametrize("value", ["", " ", "a\r\nb: c", "a\nb", "a\x00b", "caf\xe9", " a", "a "])
def test_invalid_header_value_is_dropped(value: str) -> None:
    """A stored value that would make an invalid header is not sent."""
    assert "cache-control" not in sent_headers(cache_control=value)


@pytest.mark.parametrize("stored", ["", "binary/octet-stream"])
def test_object_without_content_type_gets_the_default(stored: str) -> None:
    """An empty Content-Type and binary/octet-stream are replaced by the default type."""
    assert sent_headers(content_type=stored)["content-type"] == "image/jpeg"


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
        'video/webm; codecs="vp8, opus"',
        'video/mp4; codecs="avc1.42E01E, mp4a.40.2"',
        'video/mp4;a=",text/html"',
    ],
)
def test_inert_type_is_sent_inline(stored: str) -> None:
    """A type that browsers do not run is sent unchanged, with `nosniff`."""
    sent = sent_headers(content_type=stored)
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
def test_active_type_is_sent_as_attachment_in_sandbox(stored: str) -> None:
    """A type that a browser could run is an attachment with a sandbox policy."""
    sent = sent_headers(content_type=stored)
    assert sent["content-disposition"] == "attachment"
    assert sent["content-security-policy"] == "sandbox; default-src 'none'"
    assert sent["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "stored",
    [
        "image/png, text/html",
        "image/png,text/html;x=1",
        "html",
        "image/",
        "/png",
        "image/png\r\nx: y",
        "i mage/png",
        "image/\xe9",
    ],
)
def test_invalid_content_type_becomes_octet_stream(stored: str) -> None:
    """A stored Content-Type that is not a media type is sent as application/octet-stream."""
    sent = sent_headers(content_type=stored)
    assert sent["content-type"] == "application/octet-stream"
    assert sent["content-disposition"] == "attachment"


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("image/jpeg;", "image/jpeg"),
        ("image/jpeg ; ", "image/jpeg"),
        ("video/webm;codecs=vp8,opus", "video/webm"),
        ("image/png;x, text/html", "image/png"),
        ("text/plain;,text/html", "text/plain"),
        ("image/png; charset=utf-8;,text/html", "image/png"),
        ('image/png; name="a', "image/png"),
        ("image/png; name=\xe9", "image/png"),
        ("image/png; a=1\r\nx: y", "image/png"),
    ],
)
def test_odd_parameters_of_an_inert_type_are_dropped(stored: str, sent: str) -> None:
    """The client gets the type alone, which is no list of types."""
    headers = sent_headers(content_type=stored)
    assert headers["content-type"] == sent
    assert "content-disposition" not in headers


def test_odd_parameters_of_an_active_type_keep_its_sandbox() -> None:
    """The type before the parameters decides, whatever follows."""
    headers = sent_headers(content_type="text/html;, image/png")
    assert headers["content-type"] == "text/html"
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"


@given(
    st.dictionaries(
        st.sampled_from(["etag", "cache-control", "content-type", "expires", "content-language"]),
        st.text(max_size=40),
    )
)
def test_random_stored_values_make_valid_headers(stored: dict[str, str]) -> None:
    """Any stored text makes only valid headers."""
    for value in headers_for(stored).values():
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
def test_attachment_name_is_encoded_and_has_no_path(name: str, disposition: str) -> None:
    """A filename has an ASCII form and a UTF-8 form, and no path."""
    assert attachment(name) == disposition


@given(st.text(max_size=300))
def test_random_attachment_name_makes_a_valid_header(name: str) -> None:
    """Any filename makes a valid header without further parameters."""
    value = attachment(name)
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') in (0, 2)
    assert len(value) < 3000


def test_stored_disposition_is_sent_only_for_inert_types() -> None:
    """A stored Content-Disposition is sent for an inert type; an active type is an attachment."""
    inline, saved = 'inline; filename="a"', 'attachment; filename="a"'
    assert sent_headers(content_disposition=inline)["content-disposition"] == inline
    page = sent_headers(content_type="text/html", content_disposition=inline)
    assert page["content-disposition"] == "attachment"
    page = sent_headers(content_type="text/html", content_disposition=saved)
    assert page["content-disposition"] == saved
    assert "content-disposition" not in sent_headers(content_disposition="inline\r\nx: y")


def test_metadata_is_sent_only_if_the_setting_names_it() -> None:
    """User metadata is sent only if S3_METADATA_HEADERS names it."""
    stored = {"x-amz-meta-owner": "me", "x-amz-meta-secret": "s", "x-amz-meta-odd": "a\x00"}
    names = ("owner", "odd", "missing")
    sent = headers_for(stored, metadata_names=names)
    assert {name for name in sent if name.startswith("x-amz")} == {"x-amz-meta-owner"}


def test_default_cache_control_does_not_replace_a_stored_one() -> None:
    """The default Cache-Control is sent only if the object has none."""
    for stored, sent in (({}, "max-age=5"), ({"cache-control": "no-store"}, "no-store")):
        headers = headers_for(stored, default_cache_control="max-age=5")
        assert headers["cache-control"] == sent


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("", "private"),
        ("public, max-age=60", "private, max-age=60"),
        ("max-age=60, s-maxage=600", "private, max-age=60"),
        ("Public,MAX-AGE=60", "private, MAX-AGE=60"),
        ("private, max-age=60", "private, max-age=60"),
        ('private="set-cookie, x", max-age=1', "private, max-age=1"),
        ('no-cache="a, public", max-age=1', 'private, no-cache="a, public", max-age=1'),
        ("no-store", "no-store"),
        ("no-store, public", "no-store"),
        ("public, must-understand, no-store, max-age=3600", "no-store"),
        ("No-Store=1, public", "no-store"),
        ("must-understand, max-age=1", "private, max-age=1"),
        ("s-maxage = 60, public =1", "private"),
        ("\tpublic\t,\tmax-age=1\t", "private, max-age=1"),
        ('x="no-store, public"', 'private, x="no-store, public"'),
        (r'x="\", no-store"', r'private, x="\", no-store"'),
        ("no-cache", "private, no-cache"),
        ("must-revalidate, proxy-revalidate", "private, must-revalidate"),
        (",, public ,", "private"),
        ('x="unended, public', 'private, x="unended, public'),
    ],
)
def test_public_cache_control_becomes_private(stored: str, sent: str) -> None:
    """Directives for shared caches are removed; directives for private caches stay."""
    assert private_cache_control(stored) == sent
