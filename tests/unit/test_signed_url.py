"""Signed URLs: signing and checking."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.access.signed_url import SKEW_SECONDS, make_signature, rejection_reason, sign_url

PAIR = "a:0123456789abcdef"
KEY = ("a", "0123456789abcdef")
OTHER = ("b", "fedcba9876543210")
WEEK = 7 * 86_400

Parameters = list[tuple[str, str]]


def reason_for(url: str, *keys: tuple[str, str], max_lifetime: float = WEEK) -> str | None:
    """Return why a URL is rejected, parsed as by a server and Starlette."""
    parts = urlsplit(url)
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    return rejection_reason(
        dict(keys or (KEY,)), unquote(parts.path), parameters, max_lifetime=max_lifetime
    )


def test_signed_url_is_valid() -> None:
    """A signed path or absolute URL is valid under any of the keys."""
    for url in ("/tasks/1/image", "https://files.example/tasks/1/image"):
        signed = sign_url(url, PAIR, lifetime=60)
        assert signed.startswith(f"{url}?expires=")
        assert reason_for(signed, OTHER, KEY) is None


@given(
    number=st.integers(0, 10**19 - 1),
    name=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    free=st.lists(st.tuples(st.sampled_from(["utm", "v", ""]), st.text("ab&=% é", max_size=5))),
)
def test_random_signed_url_is_valid(number: int, name: str | None, free: Parameters) -> None:
    """A download name of any characters is signed, and other parameters are kept."""
    query = urlencode([*free, *([] if name is None else [("download", name)])])
    signed = sign_url(f"/tasks/{number}/image?{query}", PAIR, lifetime=60)
    assert reason_for(signed) is None
    kept = parse_qsl(urlsplit(signed).query, keep_blank_values=True)
    assert kept[: len(free)] == free


def test_signature_equals_the_one_of_openssl() -> None:
    """The signed text does not change, so that existing signed URLs stay valid."""
    # The expected values are from `openssl dgst -sha256 -hmac` over the README's five lines.
    assert make_signature(KEY[1], "/tasks/1/image", 2_000_000_000, None) == (
        "cvOVSI1oreZLGfnZZLvJke1CTOV_y6Nh-NU8uxVx-6M"
    )
    assert make_signature(KEY[1], "/tasks/1/image", 2_000_000_000, "a b\n.jpg") == (
        "1cKassRGIXH_H8nx6sJ5CRBVppIQ4UPKFM7F70-QHRo"
    )


Change = Callable[[str], str]


def replacing(old: str, new: str) -> Change:
    return lambda url: url.replace(old, new)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.partition("?")[0], "no signature"),
        (replacing("/1/", "/2/"), "wrong signature"),
        (replacing("/1/", "/01/"), "wrong signature"),
        (replacing("image?", "bytes/5?"), "wrong signature"),
        (replacing("me.jpg", "you.jpg"), "wrong signature"),
        (replacing("download=me.jpg&", ""), "wrong signature"),
        (replacing("download=me.jpg", "download="), "wrong signature"),
        (replacing("key=a", "key=b"), "wrong signature"),
        (replacing("key=a", "key=c"), "wrong signature"),
        (replacing("key=a", "key="), "wrong signature"),
        (replacing("key=a&", ""), "wrong signature"),
        (lambda url: url[:-1], "wrong signature"),
        (lambda url: url + "=", "wrong signature"),
        (lambda url: url + "A", "wrong signature"),
        (lambda url: url.partition("&signature")[0], "wrong signature"),
        (lambda url: url.partition("signature=")[0] + "signature=", "wrong signature"),
        (lambda url: url.partition("signature=")[0] + "signature=%C3%A9", "wrong signature"),
        (replacing("expires=", "expires=1"), "wrong signature"),
        (replacing("expires=", "expires=0"), "no signature"),
        (replacing("expires=", "expires=-"), "no signature"),
        (replacing("expires=", "expires=%D9%A1"), "no signature"),
        (replacing("expires=", "expires=1e9&x="), "no signature"),
        (replacing("expires=", "expires=" + "1" * 4301), "no signature"),
        (replacing("image?", "image%0A?"), "wrong signature"),
        (lambda url: url + "&expires=99999999999", "signature parameter given twice"),
        (lambda url: url + "&download=me.jpg", "signature parameter given twice"),
        (lambda url: url + "&signature=", "signature parameter given twice"),
        (lambda url: url + "&k%65y=a", "signature parameter given twice"),
    ],
)
def test_changed_url_is_rejected(change: Change, reason: str) -> None:
    """A signed URL with a changed, missing or repeated signed part is rejected."""
    signed = sign_url("/tasks/1/image?download=me.jpg", PAIR, lifetime=60)
    assert reason_for(change(signed), KEY, OTHER) == reason


def test_added_parameter_is_rejected_only_if_it_is_download() -> None:
    """Unknown parameters may be added to a signed URL, but `download` may not."""
    signed = sign_url("/tasks/1/image", PAIR, lifetime=60)
    assert reason_for(signed + "&utm_source=mail") is None
    assert reason_for(signed + "&download=") == "wrong signature"


def test_line_break_in_path_gives_another_signature() -> None:
    """A line break in a path does not add a line to the signed text."""
    assert make_signature(KEY[1], "/a\n5", 6, None) != make_signature(KEY[1], "/a", 5, "\n6")
    assert make_signature(KEY[1], "/a\n5\n", 6, None) == make_signature(KEY[1], "/a\n5\n", 6, None)
    assert make_signature(KEY[1], "/a\n5\n", 6, None) != make_signature(KEY[1], "/a", 5, None)
    assert len(make_signature(KEY[1], "\udc80", 1, "\udc80")) == 43


def test_url_of_removed_key_is_rejected() -> None:
    """A URL that is signed by a removed key, or by a renamed one, is rejected."""
    assert reason_for(sign_url("/tasks/1/image", PAIR, lifetime=60), OTHER) == "wrong signature"
    renamed = PAIR.replace("a:", "c:")
    assert reason_for(sign_url("/tasks/1/image", renamed, lifetime=60)) == "wrong signature"


def test_url_after_expires_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is rejected from its `expires` second on."""
    signed = sign_url("/tasks/1/image", PAIR, lifetime=60)
    expires = int(dict(parse_qsl(urlsplit(signed).query))["expires"])
    monkeypatch.setattr(time, "time", lambda: expires - 0.5)
    assert reason_for(signed) is None
    monkeypatch.setattr(time, "time", lambda: float(expires))
    assert reason_for(signed) == "signature expired"


def test_url_beyond_max_lifetime_is_rejected() -> None:
    """A URL that expires later than URL_MAX_LIFETIME plus clock skew is rejected."""
    assert SKEW_SECONDS == 300
    assert reason_for(sign_url("/tasks/1/image", PAIR, lifetime=WEEK + SKEW_SECONDS)) is None
    too_long = sign_url("/tasks/1/image", PAIR, lifetime=WEEK + SKEW_SECONDS + 5)
    assert reason_for(too_long) == "signature expires later than URL_MAX_LIFETIME allows"


def test_root_path_in_signed_url_is_not_signed() -> None:
    """The path prefix under which an application is mounted is not signed."""
    signed = sign_url(
        "https://x.example/media/tasks/1/image", PAIR, lifetime=9, root_path="/media"
    )
    assert reason_for(signed.replace("/media", "")) is None


@pytest.mark.parametrize(
    ("url", "lifetime", "root_path"),
    [
        ("/tasks/1/image?signature=x", 60, ""),
        ("/tasks/1/image?key=x", 60, ""),
        ("/tasks/1/image?download=a&download=b", 60, ""),
        ("/tasks/1/image", 60, "/media"),
        ("/mediatasks/1/image", 60, "/media"),
        ("tasks/1/image", 60, ""),
        ("https://files.example", 60, ""),
        ("/tasks/x/image", 60, ""),
        ("/tasks/1/image/", 60, ""),
        ("//tasks/1/image", 60, ""),
        ("/a/../tasks/1/image", 60, ""),
        ("/media/tasks/1/image", 60, ""),
        ("ftp://files.example/tasks/1/image", 60, ""),
        ("javascript:/tasks/1/image", 60, ""),
        ("http:/tasks/1/image", 60, ""),
        ("/tasks/1/image%0A", 60, ""),
        ("/tasks/1/image", 0.4, ""),
        ("/tasks/1/image", 0, ""),
        ("/tasks/1/image", -1, ""),
        ("/tasks/1/image", float("inf"), ""),
        ("/tasks/1/image", float("nan"), ""),
    ],
)
def test_sign_url_with_invalid_input_raises(url: str, lifetime: float, root_path: str) -> None:
    """`sign_url` raises ValueError for a URL or lifetime that would not be valid."""
    with pytest.raises(
        ValueError, match=r"must be an http|must be the URL of|must have no|lifetime must be"
    ):
        sign_url(url, PAIR, lifetime=lifetime, root_path=root_path)


@pytest.mark.parametrize("key", ["", "a", "a:", "a:short", ":0123456789abcdef", "a b:" + "x" * 16])
def test_sign_url_with_invalid_key_raises(key: str) -> None:
    """`sign_url` raises ValueError for a key without id or with a short secret."""
    with pytest.raises(ValueError, match="a key must be id:secret"):
        sign_url("/tasks/1/image", key, lifetime=60)


def test_percent_encoded_path_has_the_same_signature() -> None:
    """The unquoted path is signed, and a fragment is dropped."""
    signed = sign_url("/tasks/%31/image#top", PAIR, lifetime=60)
    assert "#" not in signed
    assert reason_for(signed) is None
    assert reason_for(signed.replace("%31", "1")) is None
    assert sign_url("/media/tasks/1/image", PAIR, lifetime=60, root_path="/media/")
