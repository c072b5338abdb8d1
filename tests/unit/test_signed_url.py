"""Signed addresses: pure functions over a path, a query and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.access.signed_url import SKEW_SECONDS, SigningKey, rejection_reason, sign_url

PAIR = "a:0123456789abcdef"
KEY = SigningKey.parse(PAIR)
OTHER = SigningKey.parse("b:fedcba9876543210")
WEEK = 7 * 86_400

Parameters = list[tuple[str, str]]


def problem_with(url: str, *keys: SigningKey, max_lifetime: float = WEEK) -> str | None:
    """Return what is wrong with an address, split as a server and Starlette split it."""
    parts = urlsplit(url)
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    return rejection_reason(
        keys or (KEY,), unquote(parts.path), parameters, max_lifetime=max_lifetime
    )


def test_signed_address_is_good() -> None:
    """What is signed is let in, by a path or a whole address, under any of the keys."""
    for url in ("/tasks/1/image", "https://files.example/tasks/1/image"):
        signed = sign_url(url, PAIR, lifetime=60)
        assert signed.startswith(f"{url}?expires=")
        assert problem_with(signed, OTHER, KEY) is None


@given(
    number=st.integers(0, 10**19 - 1),
    name=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    free=st.lists(st.tuples(st.sampled_from(["utm", "v", ""]), st.text("ab&=% é", max_size=5))),
)
def test_whatever_is_signed_is_good(number: int, name: str | None, free: Parameters) -> None:
    """Names of any characters are signed with the path, and other parameters are kept."""
    query = urlencode([*free, *([] if name is None else [("download", name)])])
    signed = sign_url(f"/tasks/{number}/image?{query}", PAIR, lifetime=60)
    assert problem_with(signed) is None
    kept = parse_qsl(urlsplit(signed).query, keep_blank_values=True)
    assert kept[: len(free)] == free


def test_signature_is_the_one_that_other_languages_make() -> None:
    """The text that is signed is fixed: another one would end every address that is out.

    These are of `openssl dgst -sha256 -hmac` over the lines that the README tells.
    """
    assert KEY.signature("/tasks/1/image", 2_000_000_000, None) == (
        "cvOVSI1oreZLGfnZZLvJke1CTOV_y6Nh-NU8uxVx-6M"
    )
    assert KEY.signature("/tasks/1/image", 2_000_000_000, "a b\n.jpg") == (
        "1cKassRGIXH_H8nx6sJ5CRBVppIQ4UPKFM7F70-QHRo"
    )


Change = Callable[[str], str]


def replacing(old: str, new: str) -> Change:
    return lambda url: url.replace(old, new)


@pytest.mark.parametrize(
    ("change", "problem"),
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
def test_changed_address_is_refused(change: Change, problem: str) -> None:
    """No part that was signed may be changed, left out or doubled."""
    signed = sign_url("/tasks/1/image?download=me.jpg", PAIR, lifetime=60)
    assert problem_with(change(signed), KEY, OTHER) == problem


def test_other_parameters_are_free() -> None:
    """What changes nothing about an answer may be added; a name, even an empty one, may not."""
    signed = sign_url("/tasks/1/image", PAIR, lifetime=60)
    assert problem_with(signed + "&utm_source=mail") is None
    assert problem_with(signed + "&download=") == "wrong signature"


def test_no_two_addresses_are_signed_alike() -> None:
    """A line break in a path is none in what is signed, and no text is an error."""
    assert KEY.signature("/a\n5", 6, None) != KEY.signature("/a", 5, "\n6")
    assert KEY.signature("/a\n5\n", 6, None) == KEY.signature("/a\n5\n", 6, None)
    assert KEY.signature("/a\n5\n", 6, None) != KEY.signature("/a", 5, None)
    assert len(KEY.signature("\udc80", 1, "\udc80")) == 43


def test_key_that_is_no_more_signs_nothing() -> None:
    """Addresses end with their key; a right signature under another id is none."""
    assert problem_with(sign_url("/tasks/1/image", PAIR, lifetime=60), OTHER) == "wrong signature"
    renamed = PAIR.replace("a:", "c:")
    assert problem_with(sign_url("/tasks/1/image", renamed, lifetime=60)) == "wrong signature"


def test_address_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is good until its second has come."""
    signed = sign_url("/tasks/1/image", PAIR, lifetime=60)
    expires = int(dict(parse_qsl(urlsplit(signed).query))["expires"])
    monkeypatch.setattr(time, "time", lambda: expires - 0.5)
    assert problem_with(signed) is None
    monkeypatch.setattr(time, "time", lambda: float(expires))
    assert problem_with(signed) == "signature expired"


def test_lifetime_is_bounded() -> None:
    """An address that is good for longer than allowed is good for nothing, but for the skew."""
    assert SKEW_SECONDS == 300
    assert problem_with(sign_url("/tasks/1/image", PAIR, lifetime=WEEK + SKEW_SECONDS)) is None
    too_long = sign_url("/tasks/1/image", PAIR, lifetime=WEEK + SKEW_SECONDS + 5)
    assert problem_with(too_long) == "signature expires later than URL_MAX_LIFETIME allows"


def test_mounted_application_signs_its_own_path() -> None:
    """What an application is mounted at is no part of what is signed."""
    signed = sign_url(
        "https://x.example/media/tasks/1/image", PAIR, lifetime=9, root_path="/media"
    )
    assert problem_with(signed.replace("/media", "")) is None


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
def test_what_can_not_be_signed_is_said(url: str, lifetime: float, root_path: str) -> None:
    """Nothing is signed that would not be good, or not what was meant."""
    with pytest.raises(
        ValueError, match=r"must be an http|must be the URL of|has a signature|lifetime must be"
    ):
        sign_url(url, PAIR, lifetime=lifetime, root_path=root_path)


@pytest.mark.parametrize("key", ["", "a", "a:", "a:short", ":0123456789abcdef", "a b:" + "x" * 16])
def test_key_that_is_none_signs_nothing(key: str) -> None:
    """It would be a secret that anybody can guess."""
    with pytest.raises(ValueError, match="a key must be id:secret"):
        sign_url("/tasks/1/image", key, lifetime=60)


def test_address_is_signed_as_it_is_used() -> None:
    """What stands percent-encoded in a path is what is asked for; a fragment never is."""
    signed = sign_url("/tasks/%31/image#top", PAIR, lifetime=60)
    assert "#" not in signed
    assert problem_with(signed) is None
    assert problem_with(signed.replace("%31", "1")) is None
    assert sign_url("/media/tasks/1/image", PAIR, lifetime=60, root_path="/media/")


def test_secret_is_in_no_repr() -> None:
    """A key can be shown in a traceback."""
    assert KEY.secret not in repr(KEY)
