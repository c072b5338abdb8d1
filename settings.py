"""Settings: the one place where configuration is read, checked and explained.

`Settings.from_environ()` reads the environment, `Settings(...)` takes the same values in code.
Both check every value and report all problems at once, in one `SettingsError`.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

MIB = 1024 * 1024

# What an idle process holds, and a download whose client is slow, at the most (both measured).
IDLE_BYTES = 96 * MIB
DOWNLOAD_BYTES = 1 * MIB
# What a connection that reads ahead fetches, at the least (`handlers/body/read_ahead.py`).
PIECE_BYTES = 1 * MIB
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
MAX_KEY_BYTES = 1024  # of S3 itself

# What botocore takes; anything else would be its exception, at start or at the first request.
BUCKET = (
    r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}"
    r"|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:[A-Za-z0-9/:.-]+"
)
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
REGION = rf"(?![0-9]+$){_LABEL}"
ENDPOINT_HOST = rf"(?:{_LABEL}\.)*{_LABEL}\.?|[0-9A-Fa-f:.]+"
BUCKET_NAMES = "S3_IMAGE_BUCKET S3_BUCKET AWS_S3_BUCKET_NAME BUCKET_NAME BUCKETEER_BUCKET_NAME"

# What whoever sets it means to close something by: blank, it would be open.
CLOSING = ("ACCESS_TOKENS", "URL_SIGNING_KEYS", "METRICS_TOKENS")

# What Heroku's add-on Bucketeer sets for its one bucket, and what it stands in for.
BUCKETEERS = (
    (
        {"BUCKETEER_AWS_ACCESS_KEY_ID", "BUCKETEER_AWS_SECRET_ACCESS_KEY"},
        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"},
    ),
    ({"BUCKETEER_AWS_REGION"}, {"AWS_REGION", "AWS_DEFAULT_REGION"}),
)


class SettingsError(ValueError):
    """One or more settings are wrong; `problems` holds one line for each, none with a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Kind:
    """What the values of a setting are: how a text becomes one, and whether one is right.

    Both raise ValueError, whose text completes "NAME ...".
    """

    check: Callable[[Any], None]
    parse: Callable[[str], Any] = str


@dataclass(frozen=True, slots=True)
class Variable:
    """How one setting is named, checked and explained; also in the README's table."""

    names: tuple[str, ...]
    kind: Kind
    example: str
    meaning: str
    default_text: str | None

    def value_of(self, text: str) -> Any:
        """Return the value that `text` stands for; raises ValueError."""
        value = self.kind.parse(text)
        self.kind.check(value)
        return value


def setting(
    default: Any,
    names: str,
    kind: Kind,
    example: str,
    meaning: str,
    *,
    default_text: str | None = None,
    secret: bool = False,
) -> Any:
    """Return the dataclass field of a setting that the environment has under `names`."""
    metadata = {"variable": Variable(tuple(names.split()), kind, example, meaning, default_text)}
    return field(default=default, repr=not secret, metadata=metadata)


def variable_of(a_field: Field[Any]) -> Variable:
    """Return the `Variable` that `setting()` put on a field of `Settings`."""
    found: Variable = a_field.metadata["variable"]
    return found


def _text(pattern: str, what: str) -> Kind:
    def check(value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")

    return Kind(check)


def _whole_number(least: int, most: int) -> Kind:
    def check(value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise ValueError("must be a whole number")
        return int(text)

    return Kind(check, parse)


def _seconds(least: float, most: float) -> Kind:
    def check(value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not least <= value <= most:
            raise ValueError(f"must be seconds from {least:g} to {most:g}")

    def parse(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ValueError("must be a number") from None

    return Kind(check, parse)


def _check_url(value: Any) -> None:
    problem = "must be an http:// or https:// address with a host"
    if not isinstance(value, str) or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError(problem)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0 and not parts.fragment and value.isprintable()
        usable = usable and ".." not in (parts.hostname or "")
        value.encode()
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(problem)


def _check_endpoint_url(value: Any) -> None:
    _check_url(value)
    if not re.fullmatch(ENDPOINT_HOST, urlsplit(value).hostname or ""):
        raise ValueError("must have a host of letters, digits, hyphens and dots")
    if "?" in value:
        raise ValueError("must have no query")


def _check_template(value: Any, *allowed: str) -> None:
    expected = " and ".join("{" + name + "}" for name in allowed)
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text")
    try:
        parts = list(Formatter().parse(value))
    except ValueError:
        raise ValueError(f"has an unbalanced brace; its fields are {expected}") from None
    for _, name, form, conversion in parts:
        if name is not None and (name not in allowed or form or conversion):
            raise ValueError(f"has an unknown field; its fields are {expected}")


def _check_key_template(value: Any) -> None:
    _check_template(value, "task_id")
    key = value.format(task_id="9" * 19)
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    if size > MAX_KEY_BYTES:
        raise ValueError(f"makes keys of more than the {MAX_KEY_BYTES} bytes that S3 allows")
    # Path-style, ".." would name another bucket to a store that normalises paths.
    if {".", ".."} & set(key.split("/")) or re.search(r"[\x00-\x1f\x7f]", key):
        raise ValueError("must not have '.' or '..' as a segment, nor control characters")


def _check_url_template(value: Any) -> None:
    _check_template(value, "task_id", "size")
    urls = [value.format(task_id=number, size=number) for number in (1, 2)]
    for url in urls:
        _check_url(url)
    if len({urlsplit(url).netloc for url in urls}) > 1:
        raise ValueError("must have its fields behind the host and port")


def _check_tls_verify(value: Any) -> None:
    if isinstance(value, bool):
        return
    try:
        # The path of a file that is none would load none, where "" would load the system's.
        ssl.create_default_context(cafile=Path(value))
    except (OSError, TypeError, ValueError):
        raise ValueError("must be true, false, or the path of a readable CA bundle") from None


def _check_bool(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - as every other problem


def _parse_bool(text: str) -> bool | str:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)


def _parse_style(text: str) -> str:
    """Return the style that is meant: Railway's own word for one of them is a longer one."""
    return "virtual" if text in ("virtual-host", "virtual-hosted") else text


def _check_directory(value: Any) -> None:
    if not isinstance(value, str) or not Path(value).is_dir() or not os.access(value, os.W_OK):
        raise ValueError("must be a directory that can be written to")


def _list_of(pattern: str, what: str) -> Kind:
    def check(value: Any) -> None:
        texts = value if isinstance(value, tuple) else (None,)
        if not all(isinstance(one, str) and re.fullmatch(pattern, one) for one in texts):
            raise ValueError(f"must be {what}")

    return Kind(check, lambda text: tuple(one.strip() for one in text.split(",") if one.strip()))


_metadata_names = _list_of(
    r"[a-z0-9!#$%&'*+.^_`|~-]+", "names of headers in lower case, without x-amz-meta-"
)
_origins = _list_of(
    r"https?://[A-Za-z0-9.:\[\]-]+|\*", "origins (scheme, host and port, no path), or *"
)
_TOKEN68 = r"[A-Za-z0-9._~+/-]{16,512}={0,2}"  # as RFC 6750 has it
_TOKENS = "tokens of at least 16 letters and digits, with commas between"
_KEYS = "id:secret, with commas between, secrets of at least 16 letters and digits"


def _parse_secrets(text: str) -> tuple[str, ...]:
    found = tuple(one.strip() for one in text.split(","))
    if not all(found):  # None would be "open to all", which nobody means by setting it.
        raise ValueError("must have no empty element")
    return found


def _check_signing_keys(value: Any) -> None:
    _list_of(rf"[A-Za-z0-9_-]{{1,32}}:{_TOKEN68}", _KEYS).check(value)
    ids = [pair.partition(":")[0] for pair in value]
    if len(set(ids)) < len(ids):
        raise ValueError("must have an id of its own for each key")


_tokens = Kind(_list_of(_TOKEN68, _TOKENS).check, _parse_secrets)
_signing_keys = Kind(_check_signing_keys, _parse_secrets)
_secret = _text(r"\S+", "a text without blanks")
_address = _text(r"[A-Za-z0-9.:_-]+", "an address or a host name")
_proxies = _text(r"\*|[0-9A-Fa-f.:/, ]+", "* or addresses with commas between")
_field_value = _text(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", "the value of a header")
_CHAIN = "botocore's chain: profile, role, SSO, instance metadata"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that downspout can be told; every setting has a variable of the environment.

    A setting whose default is None may be left out. Raises `SettingsError` with one line for each
    wrong value. Durations are in seconds, sizes in bytes.
    """

    s3_image_bucket: str = setting(
        MISSING,
        BUCKET_NAMES,
        _text(BUCKET, "the name of a bucket, or the ARN of an access point"),
        "photos",
        "Bucket that holds the images.",
        default_text="required",
    )
    s3_image_key: str = setting(
        "test/{task_id}/image.jpg",
        "S3_IMAGE_KEY",
        Kind(_check_key_template),
        "images/{task_id}.jpg",
        "Key of a task's image; `{task_id}` is the number in the path.",
    )
    s3_region: str | None = setting(
        None,
        "AWS_REGION AWS_DEFAULT_REGION BUCKETEER_AWS_REGION",
        _text(REGION, "the name of a region"),
        "eu-central-1",
        "Region of the bucket.",
        default_text="as botocore finds it",
    )
    s3_endpoint_url: str | None = setting(
        None,
        "AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL",
        Kind(_check_endpoint_url),
        "https://fly.storage.tigris.dev",
        "Address of an S3-compatible store.",
        default_text="AWS",
    )
    s3_addressing_style: str | None = setting(
        None,
        "S3_ADDRESSING_STYLE AWS_S3_URL_STYLE",
        Kind(_text("auto|path|virtual", "path, virtual or auto").check, _parse_style),
        "virtual",
        "`path`, `virtual` or `auto`: where the bucket's name goes in a request.",
        default_text="`path` with an endpoint, else `auto`",
    )
    s3_tls_verify: bool | str = setting(
        True,
        "AWS_TLS_VERIFY",
        Kind(_check_tls_verify, _parse_bool),
        "/etc/ssl/store-ca.pem",
        "`true`, `false` (warned about at start), or the path of a CA bundle.",
    )
    s3_direct: bool = setting(
        True,
        "S3_DIRECT",
        Kind(_check_bool, _parse_bool),
        "false",
        "Whether requests to an ordinary bucket are signed and sent without botocore; faster.",
    )
    aws_access_key_id: str | None = setting(
        None,
        "AWS_ACCESS_KEY_ID BUCKETEER_AWS_ACCESS_KEY_ID",
        _secret,
        "AKIA...",
        "Access key of the store.",
        default_text=_CHAIN,
        secret=True,
    )
    aws_secret_access_key: str | None = setting(
        None,
        "AWS_SECRET_ACCESS_KEY BUCKETEER_AWS_SECRET_ACCESS_KEY",
        _secret,
        "wJalr...",
        "Secret of that access key.",
        default_text="likewise",
        secret=True,
    )
    aws_session_token: str | None = setting(
        None,
        "AWS_SESSION_TOKEN",
        _secret,
        "IQoJb3...",
        "Session token, where the access key is a temporary one.",
        default_text="likewise",
        secret=True,
    )
    image_cache_control: str | None = setting(
        None,
        "IMAGE_CACHE_CONTROL",
        _field_value,
        "public, max-age=3600",
        "Cache-Control of images whose object has none.",
    )
    s3_metadata_headers: tuple[str, ...] = setting(
        (),
        "S3_METADATA_HEADERS",
        _metadata_names,
        "owner,camera",
        "Names, with commas between, of user metadata to send as `x-amz-meta-NAME`.",
        default_text="none",
    )
    bytes_url: str = setting(
        "http://httpbin.org/stream-bytes/{size}",
        "BYTES_URL",
        Kind(_check_url_template),
        "https://files.example/{task_id}/{size}",
        "Address that the bytes route streams from; fields `{task_id}` and `{size}`.",
        secret=True,
    )
    bytes_max_size: int = setting(
        1024 * MIB,
        "BYTES_MAX_SIZE",
        _whole_number(0, 10**18 - 1),
        "104857600",
        "Largest size in bytes that is asked of the upstream; more is a 400.",
    )
    cors_origins: tuple[str, ...] = setting(
        (),
        "CORS_ORIGINS",
        _origins,
        "https://app.example,https://www.example",
        "Origins, with commas between, whose pages may read downloads; `*` for all.",
        default_text="none",
    )
    access_tokens: tuple[str, ...] = setting(
        (),
        "ACCESS_TOKENS",
        _tokens,
        "4f8c...",
        "Tokens, with commas between, one of which a download needs: `Authorization: Bearer ...`.",
        default_text="none: open to all",
        secret=True,
    )
    url_signing_keys: tuple[str, ...] = setting(
        (),
        "URL_SIGNING_KEYS",
        _signing_keys,
        "2026a:9b1d...",
        "Keys, as `id:secret` with commas between, one of which an address has to be signed with.",
        default_text="none: open to all",
        secret=True,
    )
    url_max_lifetime: float = setting(
        7 * 86_400.0,  # as long as S3 allows its own
        "URL_MAX_LIFETIME",
        _seconds(1, 10 * 366 * 86_400),
        "3600",
        "Seconds that a signed address may be good for.",
        default_text="`604800`",
    )
    metrics_tokens: tuple[str, ...] = setting(
        (),
        "METRICS_TOKENS",
        _tokens,
        "c02e...",
        "Tokens, with commas between, one of which `/metrics` needs.",
        default_text="none: open to all",
        secret=True,
    )
    host: str = setting(
        "127.0.0.1",
        "HOST",
        _address,
        "0.0.0.0",  # noqa: S104
        "Address to listen on; the Procfile sets `0.0.0.0`.",
    )
    port: int = setting(
        8000, "PORT", _whole_number(0, 65535), "8000", "Port to listen on; 0 takes a free one."
    )
    web_concurrency: int = setting(
        1,
        "WEB_CONCURRENCY",
        _whole_number(1, 256),
        "2",
        "Processes that serve; the limits below hold for each of them.",
    )
    forwarded_allow_ips: str = setting(
        "127.0.0.1,::1",
        "FORWARDED_ALLOW_IPS",
        _proxies,
        "*",
        "Proxies whose X-Forwarded-For and -Proto are believed; `*` believes all.",
    )
    upstream_connect_timeout: float = setting(
        5.0,
        "UPSTREAM_CONNECT_TIMEOUT",
        _seconds(0.05, 300),
        "5",
        "Seconds for a connection to the store or the bytes upstream.",
    )
    upstream_read_timeout: float = setting(
        20.0,
        "UPSTREAM_READ_TIMEOUT",
        _seconds(0.05, 3600),
        "20",
        "Seconds of silence allowed to either, never a total.",
    )
    first_byte_timeout: float = setting(
        20.0,  # under the 30 s that PaaS routers wait for a first byte (Heroku's H12)
        "FIRST_BYTE_TIMEOUT",
        _seconds(0.05, 3600),
        "20",
        "Seconds until the upstream's answer has begun, retries included; else 504.",
    )
    max_resumes: int = setting(
        10,
        "MAX_RESUMES",
        _whole_number(0, 1000),
        "10",
        "Re-opens without a byte in between, after which a broken body is given up.",
    )
    client_stall_timeout: float = setting(
        30.0,
        "CLIENT_STALL_TIMEOUT",
        _seconds(1, 3600),
        "30",
        "Seconds without a byte taken, after which a client's connection is dropped.",
    )
    client_min_rate: int = setting(
        1024,  # a modem of 1996 had three times that
        "CLIENT_MIN_RATE",
        _whole_number(0, 10**9),
        "1024",
        "Bytes a second that a client has to take, over what lies in buffers; 0 for any.",
    )
    verify_checksums: bool = setting(
        False,
        "VERIFY_CHECKSUMS",
        Kind(_check_bool, _parse_bool),
        "true",
        "Whether whole images are checked against the checksum that S3 has of them.",
        default_text="`false`",
    )
    max_downloads: int = setting(
        None,
        "MAX_DOWNLOADS",
        _whole_number(1, 100_000),
        "256",
        "Downloads at once in a process; both connection pools are sized by it.",
        default_text="what 60 % of the memory has room for, from 16 to 1000",
    )
    max_downloads_per_client: int | None = setting(
        None,
        "MAX_DOWNLOADS_PER_CLIENT",
        _whole_number(1, 100_000),
        "8",
        "Downloads at once of one address in a process; more are a 429. Think of parallel parts.",
    )
    queue_timeout: float = setting(
        5.0,
        "QUEUE_TIMEOUT",
        _seconds(0, 300),
        "5",
        "Seconds that a request waits while all of those are taken; then 503.",
    )
    shutdown_grace: float = setting(
        25.0,  # under the 30 s between SIGTERM and SIGKILL of Heroku, Render and Kubernetes
        "SHUTDOWN_GRACE",
        _seconds(0, 86_400),
        "25",
        "Seconds that running downloads get after SIGTERM.",
    )
    read_ahead_connections: int = setting(
        8,
        "READ_AHEAD_CONNECTIONS",
        _whole_number(1, 64),
        "1",
        "To the store for one download, at most, where one is what limits it; 1: never more.",
    )
    read_ahead_bytes: int = setting(
        64 * 1024 * 1024,
        "READ_AHEAD_BYTES",
        _whole_number(0, 10**12),
        "268435456",
        "That all of those hold ahead of their clients.",
    )
    log_format: str | None = setting(
        None,
        "LOG_FORMAT",
        _text("text|json", "text or json"),
        "json",
        "`text` or `json` lines.",
        default_text="`text` on a terminal, else `json`",
    )
    log_level: str = setting(
        "info",
        "LOG_LEVEL",
        _text("debug|info|warning|error", "debug, info, warning or error"),
        "warning",
        "From which level on; those that went well are `info`.",
    )
    metrics_directory: str | None = setting(
        None,
        "PROMETHEUS_MULTIPROC_DIR",
        Kind(_check_directory),
        "/tmp",  # noqa: S108
        "Directory through which processes add up their metrics.",
        default_text="made by `python service.py` where it has several",
    )
    sources: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    @property
    def store_connections(self) -> int:
        """Connections to the store that downloads may have at once: what is ahead has pieces."""
        return self.max_downloads + self.read_ahead_bytes // PIECE_BYTES

    @property
    def believes_no_proxy(self) -> bool:
        """Whether the address of whoever connects is always taken for the client's."""
        return self.forwarded_allow_ips == type(self).forwarded_allow_ips

    @property
    def auth_mode(self) -> Literal["open", "token", "signature"]:
        """How who may download shows it; by a token, where a signature would do as well."""
        if self.access_tokens:
            return "token"
        return "signature" if self.url_signing_keys else "open"

    def __post_init__(self) -> None:
        if self.max_downloads is None:
            most = _downloads_in_memory(self.web_concurrency, self.read_ahead_bytes)
            object.__setattr__(self, "max_downloads", most)  # frozen, but being made
        values = {one.name: getattr(self, one.name) for one in variables()}
        problems = [
            f"{one.name}: {problem}"
            for one in variables()
            if (problem := _problem(one, values[one.name]))
        ]
        problems += [f"{name}: {problem}" for name, problem in _problems_between(values)]
        if problems:
            raise SettingsError(problems)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read every setting from `environ`; a blank value counts as not set, but for secrets.

        Raises `SettingsError` naming the variable, the problem and an example for each error.
        """
        values, sources, problems = _read(_of_the_bucket(environ), variables())
        problems += [
            f"{name} is set to nothing, which closes nothing; unset it, or give it a value"
            for name in CLOSING
            if name in environ and not environ[name].strip()
        ]
        keys = (sources.get("aws_access_key_id"), sources.get("aws_secret_access_key"))
        whose = "BUCKETEER_" if BUCKETEERS[0][0].intersection(keys) else ""
        for field_name, problem in _problems_between(values):
            how = variable_of(cls.__dataclass_fields__[field_name])
            problems.append(_line(whose + how.names[0], problem, how))
        if problems:
            raise SettingsError(problems)
        return cls(**values, sources=MappingProxyType(sources))


def variables() -> list[Field[Any]]:
    """Return the fields of `Settings` that the environment may set, in their order."""
    return [one for one in fields(Settings) if "variable" in one.metadata]


def signing_from_environ(environ: Mapping[str, str] = os.environ) -> tuple[tuple[str, ...], float]:
    """Return the keys that addresses are signed with, and for how long; raises `SettingsError`.

    They alone are read: who signs needs no bucket.
    """
    wanted = [one for one in variables() if one.name in ("url_signing_keys", "url_max_lifetime")]
    values, _, problems = _read(environ, wanted)
    keys_field, lifetime_field = wanted
    how = variable_of(keys_field)
    if not problems and not values.get("url_signing_keys"):
        problems.append(_line(how.names[0], "is not set", how))
    if problems:
        raise SettingsError(problems)
    return values["url_signing_keys"], values.get("url_max_lifetime", lifetime_field.default)


def _read(
    environ: Mapping[str, str], wanted: list[Field[Any]]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return the values of the settings that are set, their variables, and the problems."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for one in wanted:
        how = variable_of(one)
        name = next((name for name in how.names if environ.get(name, "").strip()), None)
        if name is None:
            if one.default is MISSING:
                problems.append(_line(how.names[0], "is not set", how))
            continue
        sources[one.name] = name
        try:
            values[one.name] = how.value_of(environ[name].strip())
        except ValueError as error:
            problems.append(_line(name, str(error), how))
    return values, sources, problems


def _of_the_bucket(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are not blank, without the keys and region of another bucket.

    An application may have keys of AWS's for other purposes beside Bucketeer's, which open no
    bucket but its own; half a pair of each would open none.
    """
    found = {name: text.strip() for name, text in environ.items() if text.strip()}
    bucket = next((found[name] for name in BUCKET_NAMES.split() if name in found), None)
    is_bucketeers = bucket is not None and bucket == found.get("BUCKETEER_BUCKET_NAME")
    for theirs, others in BUCKETEERS:
        holds = is_bucketeers and not theirs.isdisjoint(found)
        for name in others if holds else theirs:
            found.pop(name, None)
    return found


def _problem(one: Field[Any], value: Any) -> str | None:
    if value is None and one.default is None:
        return None
    try:
        variable_of(one).kind.check(value)
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


def _downloads_in_memory(processes: object, read_ahead: object) -> int:
    """Return how many downloads 60 % of this machine's or container's memory has room for."""
    if not isinstance(processes, int) or processes < 1 or not isinstance(read_ahead, int):
        return 1  # That is a problem of its own.
    room = _memory() // processes - IDLE_BYTES - read_ahead
    return int(min(max(room * 0.6 / DOWNLOAD_BYTES, 16), 1000))


def _memory() -> int:
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in MEMORY_LIMITS:
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # No such limit, or "max".
            continue
    return min(sizes)
