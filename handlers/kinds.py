"""Kinds of settings: how a value is checked, and parsed from an environment variable."""

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .sources.s3.names import check_bucket, check_key, parse_roots

# With other regions and hosts botocore raises errors that name no setting.
LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
ENDPOINT_HOST = rf"(?:{LABEL}\.)*{LABEL}\.?|[0-9A-Fa-f:.]+"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting's value is checked, and parsed from an environment variable."""

    check: Callable[[Any], None]
    """Raises ValueError if a value is invalid; its text, "must be ...", follows the name."""

    parse: Callable[[str], Any] = str
    """Converts a variable's text to the value; if it raises ValueError, `check` gets the text."""

    example: str = ""
    closes_access: bool = False
    """Whether a blank variable is an error, because it would open access, and not just unset."""


def _require(is_right: object, problem: str) -> None:
    if not is_right:
        raise ValueError(problem)


def _matches(pattern: str, value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def matching(pattern: str, problem: str, example: str = "") -> Kind:
    """Return the Kind of strings that the regular expression `pattern` fully matches."""
    return Kind(lambda value: _require(_matches(pattern, value), problem), example=example)


def comma_separated(
    pattern: str, problem: str, example: str, *, closes_access: bool = False
) -> Kind:
    """Return the Kind of tuples of strings; an environment variable has commas between."""

    def check(value: Any) -> None:
        _require(value != ("",), "is blank, which would open access; unset it or give it a value")
        is_tuple = isinstance(value, tuple)
        _require(is_tuple and all(_matches(pattern, one) for one in value), problem)
        ids = [one.partition(":")[0] for one in value if closes_access and ":" in one]
        _require(len(ids) == len(set(ids)), "must have a different id for each key")

    def parse(text: str) -> tuple[str, ...]:
        elements = [one.strip() for one in text.split(",")]
        return tuple(one for one in elements if one or closes_access)

    return Kind(check, parse, example, closes_access)


def whole_number(least: int, most: int) -> Kind:
    """Return the Kind of whole numbers from `least` to `most`, both included."""

    def check(value: Any) -> None:
        is_right = type(value) is int and least <= value <= most
        _require(is_right, f"must be a whole number from {least} to {most}")

    return Kind(check, lambda text: int(text) if re.fullmatch("[0-9]{1,18}", text) else text)


def seconds(least: float, most: float) -> Kind:
    """Return the Kind of durations from `least` to `most` seconds, both included."""

    def check(value: Any) -> None:
        is_right = type(value) in (int, float) and least <= value <= most
        _require(is_right, f"must be a number of seconds from {least:g} to {most:g}")

    return Kind(check, float)


def _parse_switch(text: str) -> bool | str:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)


def _check_tls_verify(value: Any) -> None:
    if isinstance(value, bool):
        return
    try:
        # A Path, because the string "" would load the system's certificates.
        ssl.create_default_context(cafile=Path(value))
    except (OSError, TypeError, ValueError):
        raise ValueError("must be true, false, or the path of a readable CA bundle") from None


def _check_directory(value: Any) -> None:
    is_right = isinstance(value, str) and value != ""
    if is_right:  # If only the last part of the path is missing, `Metrics` creates it.
        path = Path(value)
        parent = path if path.exists() else path.absolute().parent
        is_right = parent.is_dir() and os.access(parent, os.W_OK)
    _require(is_right, "must be a directory that can be written to")


def _check_url(value: Any) -> None:
    try:
        parts = urlsplit(value)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_right &= ".." not in (parts.hostname or "") and parts.port != 0
        is_right &= not parts.fragment and value.isprintable() and " " not in value
    except (AttributeError, ValueError):
        is_right = False
    _require(is_right, "must be an http:// or https:// URL with a host")


def _check_endpoint_url(value: Any) -> None:
    _check_url(value)
    host = urlsplit(value).hostname
    _require(_matches(ENDPOINT_HOST, host), "must have a host of letters, digits, '-' and '.'")
    has_user = "@" in urlsplit(value).netloc  # A presigned URL would have the password, too.
    _require(not has_user and "?" not in value, "must have no user, password or query")


def _check_key_template(value: Any) -> None:
    is_right = _matches("([^{}]|{{|}}|{task_id})+", value)
    _require(is_right, "must have no other field than {task_id}; {{ and }} are braces")
    try:
        check_key(value.format(task_id="9" * 19))
    except ValueError as error:
        raise ValueError(f"must give valid S3 keys; a key {error}") from None


def _check_url_template(value: Any) -> None:
    is_right = _matches("([^{}]|{{|}}|{task_id}|{size})+", value)
    _require(is_right, "must have no other fields than {task_id} and {size}; {{ and }} are braces")
    url, other = (value.format(task_id=number, size=number) for number in (1, 2))
    _check_url(url)
    is_right = urlsplit(url).netloc == urlsplit(other).netloc
    _require(is_right, "must have {task_id} and {size} only after host and port")


def _check_auth_url(value: Any) -> None:
    _check_url(value)
    _require("@" not in urlsplit(value).netloc, "must have no user or password")


def _check_roots(value: Any) -> None:
    is_right = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    _require(is_right, "must be a tuple of strings")
    parse_roots(value)


AUTH_URL = Kind(_check_auth_url, example="http://127.0.0.1:3000/auth", closes_access=True)
BUCKET = Kind(check_bucket, example="photos")
DELIVERY = matching("proxy|redirect", "must be proxy or redirect")
DIRECTORY = Kind(_check_directory)
ENDPOINT_URL = Kind(_check_endpoint_url, example="https://fly.storage.tigris.dev")
KEY_TEMPLATE = Kind(_check_key_template, example="images/{task_id}.jpg")
OBJECT_ROOTS = Kind(
    _check_roots, lambda text: tuple(one.strip() for one in text.split(",")), "public/"
)
REGION = matching(rf"(?![0-9]+$){LABEL}", "must be the name of a region", "eu-central-1")
SWITCH = Kind(lambda value: _require(type(value) is bool, "must be true or false"), _parse_switch)
TLS_VERIFY = Kind(_check_tls_verify, _parse_switch, "/etc/ssl/store-ca.pem")
URL_TEMPLATE = Kind(_check_url_template, example="https://files.example/{task_id}/{size}")

TOKEN68 = r"[A-Za-z0-9._~+/-]{16,512}={0,2}"  # RFC 9110, 11.2

STYLE = Kind(
    matching("auto|path|virtual", "must be path, virtual or auto").check,
    # Railway sets AWS_S3_URL_STYLE=virtual-hosted.
    lambda text: "virtual" if text in ("virtual-host", "virtual-hosted") else text,
)
NO_BLANKS = matching(r"\S+", "must not be empty or contain whitespace")
HEADER_VALUE = matching(
    r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", "must be a header value", "max-age=3600"
)
METADATA = comma_separated(
    r"[a-z0-9!#$%&'*+.^_`|~-]+", "must be names in lower case without x-amz-meta-", "owner,camera"
)
ORIGIN = r"https?://[A-Za-z0-9.:\[\]-]+|\*"
ORIGINS = comma_separated(ORIGIN, "must be origins without a path, or *", "https://app.example")
TOKENS = comma_separated(
    TOKEN68, "must be tokens of 16 or more letters and digits", "4f8c...", closes_access=True
)
SIGNING_KEYS = comma_separated(
    rf"[A-Za-z0-9_-]{{1,32}}:{TOKEN68}",
    "must be id:secret, the secret of 16 or more letters and digits",
    "2026a:9b1d...",
    closes_access=True,
)
