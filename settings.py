"""Settings: the one place where configuration is read, checked and explained.

`Settings.from_environ()` reads the environment, `Settings(...)` takes the same values in code.
Both check every value and report all problems at once, in one `SettingsError`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

MIB = 1024 * 1024
MAX_KEY_BYTES = 1024  # of S3 itself

# What botocore takes; anything else would be its exception, at start or at the first request.
BUCKET = r"[A-Za-z0-9._-]{1,255}|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:[A-Za-z0-9/:.-]+"
REGION = r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
ENDPOINT_HOST = r"((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?)+|[0-9A-Fa-f:.]+"
BUCKET_VARIABLES = (
    "S3_IMAGE_BUCKET",
    "S3_BUCKET",
    "AWS_S3_BUCKET_NAME",
    "BUCKET_NAME",
    "BUCKETEER_BUCKET_NAME",
)


class SettingsError(ValueError):
    """One or more settings are wrong; `problems` holds one line for each, none with a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Variable:
    """How one setting is named, read, checked and explained; also in the README's table."""

    names: tuple[str, ...]
    meaning: str
    example: str
    parse: Callable[[str], Any] = str
    check: Callable[[Any], None]
    default_text: str | None = None


def variable(*names: str, **how: Any) -> dict[str, Variable]:
    """Return the metadata of a dataclass field that the environment may set under `names`."""
    return {"variable": Variable(names=names, **how)}


def variable_of(setting: Field[Any]) -> Variable:
    """Return the `Variable` that `variable()` put on a field of `Settings`."""
    found: Variable = setting.metadata["variable"]
    return found


# Parsing: text of the environment to a value. A ValueError's text completes "NAME ...".


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


def _tls_verify(text: str) -> bool | str:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)


# Checking: every value, however it was given. A ValueError's text completes "NAME ...".


def _any_of(*checks: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        problems = [_problem(one, value) for one in checks]
        if all(problems):
            raise ValueError(problems[-1])

    return check


def _none(value: Any) -> None:
    if value is not None:
        raise ValueError("must be left out")


def _text(pattern: str, what: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")

    return check


def _integer(least: int, most: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")

    return check


def _seconds(least: float, most: float) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not least <= value <= most:
            raise ValueError(f"must be seconds from {least:g} to {most:g}")

    return check


def _url(value: Any) -> None:
    problem = "must be an http:// or https:// address with a host"
    if not isinstance(value, str) or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError(problem)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0 and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(problem)


def _endpoint_url(value: Any) -> None:
    _url(value)
    host = urlsplit(value).hostname or ""
    if not re.fullmatch(ENDPOINT_HOST, host):
        raise ValueError("must have a host of letters, digits, hyphens and dots")


def _template(*allowed: str) -> Callable[[Any], None]:
    expected = " and ".join("{" + name + "}" for name in allowed)

    def check(value: Any) -> None:
        if not isinstance(value, str) or not value:
            raise ValueError("must be a text")
        try:
            parts = list(Formatter().parse(value))
        except ValueError:
            raise ValueError(f"has an unbalanced brace; its fields are {expected}") from None
        for _, name, form, conversion in parts:
            if name is not None and (name not in allowed or form or conversion):
                raise ValueError(f"has an unknown field; its fields are {expected}")

    return check


def _key_template(value: Any) -> None:
    _template("task_id")(value)
    key = value.format(task_id="9" * 19)
    if len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise ValueError(f"makes keys of more than the {MAX_KEY_BYTES} bytes that S3 allows")
    # Path-style, ".." would name another bucket to a store that normalises paths.
    if {".", ".."} & set(key.split("/")) or re.search(r"[\x00-\x1f\x7f]", key):
        raise ValueError("must not have '.' or '..' as a segment, nor control characters")


def _url_template(value: Any) -> None:
    _template("task_id", "size")(value)
    _url(value.format(task_id=1, size=1))


def _tls_verify_check(value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, str) or not Path(value).is_file():
        raise ValueError("must be true, false, or the path of a readable CA bundle")


_secret = _text(r"\S+", "a text without blanks")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that downspout can be told; every field has a variable of the environment.

    Raises `SettingsError` with one line for each wrong value. Durations are in seconds, sizes
    in bytes.
    """

    s3_image_bucket: str = field(
        metadata=variable(
            *BUCKET_VARIABLES,
            meaning="Bucket that holds the images.",
            example="photos",
            check=_text(BUCKET, "the name of a bucket, or the ARN of an access point"),
        )
    )
    s3_image_key: str = field(
        default="test/{task_id}/image.jpg",
        metadata=variable(
            "S3_IMAGE_KEY",
            meaning="Key of a task's image; `{task_id}` is the number in the path.",
            example="images/{task_id}.jpg",
            check=_key_template,
        ),
    )
    s3_region: str | None = field(
        default=None,
        metadata=variable(
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            meaning="Region of the bucket.",
            example="eu-central-1",
            check=_any_of(_none, _text(REGION, "the name of a region")),
            default_text="as botocore finds it",
        ),
    )
    s3_endpoint_url: str | None = field(
        default=None,
        metadata=variable(
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL",
            meaning="Address of an S3-compatible store.",
            example="https://fly.storage.tigris.dev",
            check=_any_of(_none, _endpoint_url),
            default_text="AWS",
        ),
    )
    s3_addressing_style: str | None = field(
        default=None,
        metadata=variable(
            "S3_ADDRESSING_STYLE",
            meaning="`path`, `virtual` or `auto`: where the bucket's name goes in a request.",
            example="virtual",
            check=_any_of(_none, _text("auto|path|virtual", "path, virtual or auto")),
            default_text="`path` with an endpoint, else `auto`",
        ),
    )
    s3_tls_verify: bool | str = field(
        default=True,
        metadata=variable(
            "AWS_TLS_VERIFY",
            meaning="`true`, `false` (warned about at start), or the path of a CA bundle.",
            example="/etc/ssl/store-ca.pem",
            parse=_tls_verify,
            check=_tls_verify_check,
        ),
    )
    aws_access_key_id: str | None = field(
        default=None,
        repr=False,
        metadata=variable(
            "AWS_ACCESS_KEY_ID",
            meaning="Access key of the store.",
            example="AKIA...",
            check=_any_of(_none, _secret),
            default_text="botocore's chain: profile, role, SSO, instance metadata",
        ),
    )
    aws_secret_access_key: str | None = field(
        default=None,
        repr=False,
        metadata=variable(
            "AWS_SECRET_ACCESS_KEY",
            meaning="Secret of that access key.",
            example="wJalr...",
            check=_any_of(_none, _secret),
            default_text="likewise",
        ),
    )
    aws_session_token: str | None = field(
        default=None,
        repr=False,
        metadata=variable(
            "AWS_SESSION_TOKEN",
            meaning="Session token, where the access key is a temporary one.",
            example="IQoJb3...",
            check=_any_of(_none, _secret),
            default_text="likewise",
        ),
    )
    bytes_url: str = field(
        default="http://httpbin.org/stream-bytes/{size}",
        repr=False,
        metadata=variable(
            "BYTES_URL",
            meaning="Address that the bytes route streams from; fields `{task_id}` and `{size}`.",
            example="https://files.example/{task_id}/{size}",
            check=_url_template,
        ),
    )
    bytes_max_size: int = field(
        default=1024 * MIB,
        metadata=variable(
            "BYTES_MAX_SIZE",
            meaning="Largest size in bytes that is asked of the upstream; more is a 400.",
            example="104857600",
            parse=_whole_number,
            check=_integer(0, 10**18 - 1),
        ),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=variable(
            "HOST",
            meaning="Address to listen on; the Procfile sets `0.0.0.0`.",
            example="0.0.0.0",  # noqa: S104
            check=_text(r"[A-Za-z0-9.:_-]+", "an address or a host name"),
        ),
    )
    port: int = field(
        default=8000,
        metadata=variable(
            "PORT",
            meaning="Port to listen on; 0 takes a free one.",
            example="8000",
            parse=_whole_number,
            check=_integer(0, 65535),
        ),
    )
    web_concurrency: int = field(
        default=1,
        metadata=variable(
            "WEB_CONCURRENCY",
            meaning="Processes that serve; the limits below hold for each of them.",
            example="2",
            parse=_whole_number,
            check=_integer(1, 256),
        ),
    )
    forwarded_allow_ips: str = field(
        default="127.0.0.1,::1",
        metadata=variable(
            "FORWARDED_ALLOW_IPS",
            meaning="Proxies whose X-Forwarded-For and -Proto are believed; `*` believes all.",
            example="*",
            check=_text(r"\*|[0-9A-Fa-f.:/, ]+", "* or addresses with commas between"),
        ),
    )
    upstream_connect_timeout: float = field(
        default=5.0,
        metadata=variable(
            "UPSTREAM_CONNECT_TIMEOUT",
            meaning="Seconds for a connection to the store or the bytes upstream.",
            example="5",
            parse=_number,
            check=_seconds(0.05, 300),
        ),
    )
    upstream_read_timeout: float = field(
        default=20.0,
        metadata=variable(
            "UPSTREAM_READ_TIMEOUT",
            meaning="Seconds of silence allowed to either, never a total.",
            example="20",
            parse=_number,
            check=_seconds(0.05, 3600),
        ),
    )
    first_byte_timeout: float = field(
        # Under the 30 s that PaaS routers wait for a first byte (Heroku's H12).
        default=20.0,
        metadata=variable(
            "FIRST_BYTE_TIMEOUT",
            meaning="Seconds until the upstream's answer has begun, retries included; else 504.",
            example="20",
            parse=_number,
            check=_seconds(0.05, 3600),
        ),
    )
    client_stall_timeout: float = field(
        default=30.0,
        metadata=variable(
            "CLIENT_STALL_TIMEOUT",
            meaning="Seconds without a byte taken, after which a client's connection is dropped.",
            example="30",
            parse=_number,
            check=_seconds(1, 3600),
        ),
    )
    max_downloads: int = field(
        # A stalled download was measured to hold about 1 MiB: 256 MiB of a 512 MiB dyno.
        default=256,
        metadata=variable(
            "MAX_DOWNLOADS",
            meaning="Downloads at once in a process; both connection pools are sized by it.",
            example="256",
            parse=_whole_number,
            check=_integer(1, 100_000),
        ),
    )
    queue_timeout: float = field(
        default=5.0,
        metadata=variable(
            "QUEUE_TIMEOUT",
            meaning="Seconds that a request waits while all of those are taken; then 503.",
            example="5",
            parse=_number,
            check=_seconds(0, 300),
        ),
    )
    shutdown_grace: float = field(
        # Under the 30 s between SIGTERM and SIGKILL of Heroku, Render and Kubernetes.
        default=25.0,
        metadata=variable(
            "SHUTDOWN_GRACE",
            meaning="Seconds that running downloads get after SIGTERM.",
            example="25",
            parse=_number,
            check=_seconds(0, 86_400),
        ),
    )
    sources: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        problems = [
            f"{setting.name}: {problem}"
            for setting in variables()
            if (problem := _problem(variable_of(setting).check, values[setting.name]))
        ]
        problems += [f"{name}: {problem}" for name, problem in _problems_between(values)]
        if problems:
            raise SettingsError(problems)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read every setting from `environ`; a blank value counts as not set.

        Raises `SettingsError` naming the variable, the problem and an example for each error.
        """
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        problems: list[str] = []
        for setting in variables():
            how = variable_of(setting)
            name = next((name for name in how.names if environ.get(name, "").strip()), None)
            if name is None:
                if setting.default is MISSING:
                    problems.append(_line(how.names[0], "is not set", how))
                continue
            text = environ[name].strip()
            sources[setting.name] = name
            try:
                value = how.parse(text)
                how.check(value)
            except ValueError as error:
                problems.append(_line(name, str(error), how))
            else:
                values[setting.name] = value
        for field_name, problem in _problems_between(values):
            how = variable_of(cls.__dataclass_fields__[field_name])
            problems.append(_line(how.names[0], problem, how))
        if problems:
            raise SettingsError(problems)
        return cls(**values, sources=MappingProxyType(sources))


def variables() -> list[Field[Any]]:
    """Return the fields of `Settings` that the environment may set, in their order."""
    return [setting for setting in fields(Settings) if "variable" in setting.metadata]


def _problem(check: Callable[[Any], Any], value: Any) -> str | None:
    try:
        check(value)
    except ValueError as error:
        return str(error)
    return None


def _line(name: str, problem: str, how: Variable) -> str:
    return f"{name} {problem}; for example {name}={how.example}"


def _problems_between(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, problem) for settings that are right alone and wrong together."""
    key_id, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    if secret and not key_id:
        yield "aws_access_key_id", "is not set while the secret access key is"
    if key_id and not secret:
        yield "aws_secret_access_key", "is not set while the access key id is"
    if values.get("aws_session_token") and not key_id:
        yield "aws_session_token", "is set without an access key id"
