"""Every setting of the application, one field each, with its variable and check."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, InitVar, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from . import kinds
from .sources.s3.names import ObjectRoot, parse_roots

AuthMode: TypeAlias = Literal["open", "token", "signature", "application"]

MIB = 1024 * 1024

# Measured: bytes of an idle process, and the most that one download to a slow client uses.
IDLE_BYTES = 96 * MIB
DOWNLOAD_BYTES = 1 * MIB
READ_AHEAD_PIECE_BYTES = 1 * MIB  # the smallest piece that read-ahead fetches
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

BUCKET_VARIABLES = "S3_IMAGE_BUCKET S3_BUCKET AWS_S3_BUCKET_NAME BUCKET_NAME BUCKETEER_BUCKET_NAME"


class SettingsError(ValueError):
    """One or more settings are wrong; `problems` has a line for each, without secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def setting(default: Any, kind: kinds.Kind, names: str = "", *, secret: bool = False) -> Any:
    """Return the dataclass field of a setting.

    `names` are its environment variables, separated by spaces; the first that is set counts. By
    default, the field's name in upper case. `repr` of the settings leaves out a secret.
    """
    return field(default=default, repr=not secret, metadata={"kind": kind, "names": names})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one application. Durations are in seconds, sizes in bytes.

    Each setting has an environment variable, with the name of the field in upper case unless it is
    given below. Raises SettingsError with a line for each wrong value.
    """

    s3_image_bucket: str = setting(MISSING, kinds.BUCKET, BUCKET_VARIABLES)
    """Bucket that holds the images. Default: required."""
    s3_image_key: str = setting("test/{task_id}/image.jpg", kinds.KEY_TEMPLATE)
    """Key of a task's image. `{task_id}` is the number in the path."""
    s3_objects: tuple[str, ...] = setting((), kinds.OBJECT_ROOTS)
    """Objects that `/objects/{key}` serves: `PREFIX/`, or `/` for all, in S3_IMAGE_BUCKET; or
    several `NAME=BUCKET/PREFIX/`, separated by commas, for `/objects/NAME/{key}`.
    Default: none: the route does not exist."""
    s3_region: str | None = setting(
        None, kinds.REGION, "AWS_REGION AWS_DEFAULT_REGION BUCKETEER_AWS_REGION"
    )
    """Region of the bucket. Default: found by botocore."""
    s3_endpoint_url: str | None = setting(
        None, kinds.ENDPOINT_URL, "AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL"
    )
    """URL of an S3-compatible store. Default: AWS."""
    s3_addressing_style: str | None = setting(
        None, kinds.STYLE, "S3_ADDRESSING_STYLE AWS_S3_URL_STYLE"
    )
    """Where an S3 request names the bucket: `path`, `virtual` or `auto`.
    Default: `path` with an endpoint URL, else `auto`."""
    s3_tls_verify: bool | str | None = setting(None, kinds.TLS_VERIFY, "AWS_TLS_VERIFY")
    """Whether the store's certificate is verified: `true`, `false`, or the path of a CA bundle.
    Default: `true`, with the bundle of AWS_CA_BUNDLE or the profile's ca_bundle."""
    s3_unsigned: bool = setting(False, kinds.SWITCH)
    """Whether requests to the store have no signature and need no access key: a public bucket."""
    s3_requester_pays: bool = setting(False, kinds.SWITCH)
    """Whether you agree to pay for requests to a requester-pays bucket."""
    s3_direct: bool = setting(True, kinds.SWITCH)
    """Whether requests to an ordinary bucket are signed and sent without botocore; faster."""
    aws_access_key_id: str | None = setting(
        None, kinds.NO_BLANKS, "AWS_ACCESS_KEY_ID BUCKETEER_AWS_ACCESS_KEY_ID", secret=True
    )
    """Access key id for the store. Default: found by botocore."""
    aws_secret_access_key: str | None = setting(
        None, kinds.NO_BLANKS, "AWS_SECRET_ACCESS_KEY BUCKETEER_AWS_SECRET_ACCESS_KEY", secret=True
    )
    """Secret access key for the store. Default: found by botocore."""
    aws_session_token: str | None = setting(None, kinds.NO_BLANKS, secret=True)
    """Session token of a temporary access key. Default: found by botocore."""
    image_cache_control: str | None = setting(None, kinds.HEADER_VALUE)
    """Cache-Control of objects that are stored without one."""
    s3_metadata_headers: tuple[str, ...] = setting((), kinds.METADATA)
    """User metadata that is sent as `x-amz-meta-NAME`: names, separated by commas."""
    delivery: Literal["proxy", "redirect"] = setting("proxy", kinds.DELIVERY)
    """Whether the image and objects routes stream an object (`proxy`), or redirect to a presigned
    URL of the store, which names bucket and key (`redirect`)."""
    # A presigned URL of S3 is valid for 7 days at most.
    redirect_lifetime: int = setting(300, kinds.whole_number(1, 7 * 86_400))
    """Seconds that a presigned URL is valid for."""

    bytes_url: str = setting(
        "http://httpbin.org/stream-bytes/{size}", kinds.URL_TEMPLATE, secret=True
    )
    """URL that the bytes route streams from, with the fields `{task_id}` and `{size}`."""
    bytes_max_size: int = setting(1024 * MIB, kinds.whole_number(0, 10**18 - 1))
    """Largest size in bytes that the bytes route accepts; a larger one gets 400."""

    cors_origins: tuple[str, ...] = setting((), kinds.ORIGINS)
    """Origins whose pages may read downloads, separated by commas; `*` for all."""

    access_tokens: tuple[str, ...] = setting((), kinds.TOKENS, secret=True)
    """Bearer tokens that authorize downloads, separated by commas.
    Default: none: downloads are open unless URL_SIGNING_KEYS or AUTH_URL is set."""
    url_signing_keys: tuple[str, ...] = setting((), kinds.SIGNING_KEYS, secret=True)
    """Keys for signed URLs, as `id:secret`, separated by commas.
    Default: none: downloads are open unless ACCESS_TOKENS or AUTH_URL is set."""
    # S3's own signed URLs are valid for 7 days at most.
    url_max_lifetime: float = setting(7 * 86_400.0, kinds.seconds(1, 10 * 366 * 86_400))
    """Seconds that a signed URL may be valid for."""
    auth_url: str | None = setting(None, kinds.AUTH_URL, secret=True)
    """URL of an application that downspout asks about each download: 2xx allows it, 401 and 403
    refuse it.
    Default: none: downloads are open unless ACCESS_TOKENS or URL_SIGNING_KEYS is set."""
    auth_cache_seconds: float = setting(0.0, kinds.seconds(0, 3600))
    """Seconds that downspout caches a 2xx of AUTH_URL, for the same URL, credentials and client;
    0 disables the cache."""
    metrics_tokens: tuple[str, ...] = setting((), kinds.TOKENS, secret=True)
    """Bearer tokens that authorize `/metrics`, separated by commas.
    Default: none: metrics are open."""

    upstream_connect_timeout: float = setting(5.0, kinds.seconds(0.05, 300))
    """Seconds to connect to the store or the bytes upstream."""
    upstream_read_timeout: float = setting(20.0, kinds.seconds(0.05, 3600))
    """Seconds without a byte after which a connection to the store or bytes upstream is given up.
    A body is then asked for again; after 45 seconds without a byte, or twice this value if that
    is more, the download is cut."""
    # PaaS routers wait 30 s for a first byte (Heroku's H12).
    first_byte_timeout: float = setting(20.0, kinds.seconds(0.05, 3600))
    """Maximum seconds until an answer begins, with queue, connection, retries; then 503 or 504."""
    max_resumes: int = setting(10, kinds.whole_number(0, 1000))
    """Attempts in a row to resume a body within 64 KiB of progress; then the connection is cut."""
    client_stall_timeout: float = setting(30.0, kinds.seconds(1, 3600))
    """Seconds that a client may take no byte before its connection is closed."""
    # A modem of 1996 is three times as fast.
    client_min_rate: int = setting(1024, kinds.whole_number(0, 10**9))
    """Bytes per second that a client must take to keep its connection; 0 for no minimum."""
    verify_checksums: bool = setting(False, kinds.SWITCH)
    """Whether whole objects are verified with the checksum that S3 stores for them."""

    max_downloads: int = setting(None, kinds.whole_number(1, 100_000))
    """Maximum concurrent downloads per process; also sizes both connection pools.
    Default: as many as fit into 60 % of the memory, from 16 to 1000."""
    max_downloads_per_client: int | None = setting(None, kinds.whole_number(1, 100_000))
    """Maximum concurrent downloads from one client address, per process; more get 429.
    Default: no limit."""
    queue_timeout: float = setting(5.0, kinds.seconds(0, 300))
    """Seconds a request waits for a free slot before it gets 503."""
    # Heroku, Render and Kubernetes wait 30 s between SIGTERM and SIGKILL.
    shutdown_grace: float = setting(25.0, kinds.seconds(0, 86_400))
    """Seconds that running downloads have to finish after SIGTERM."""

    read_ahead_connections: int = setting(8, kinds.whole_number(1, 64))
    """Maximum parallel store connections per download; 1 disables read-ahead."""
    read_ahead_bytes: int = setting(64 * MIB, kinds.whole_number(0, 10**12))
    """Bytes buffered ahead of clients, per process."""

    metrics_directory: str | None = setting(None, kinds.DIRECTORY, "PROMETHEUS_MULTIPROC_DIR")
    """Directory in which several worker processes share their metrics.
    Default: a temporary one, made by `python service.py` when it runs several processes."""

    processes: InitVar[int] = 1
    """Number of processes that share the memory; the default of `max_downloads` depends on it."""

    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Maps a field's name to the environment variable that its value came from."""

    def __post_init__(self, processes: int) -> None:
        """Check all values, then choose `max_downloads` by the memory if it is not given."""
        if problems := [*self._value_problems(), *self._combination_problems()]:
            raise SettingsError(problems)
        if self.max_downloads is None:
            fitting = downloads_in_memory(memory_bytes(), processes, self.read_ahead_bytes)
            object.__setattr__(self, "max_downloads", fitting)  # The dataclass is frozen.

    @classmethod
    def declared(cls) -> Iterator[tuple[Field[Any], kinds.Kind, list[str]]]:
        """Yield the field, the kind and the environment variables of each setting."""
        for one in fields(cls):
            if one.metadata:
                names = one.metadata["names"] or one.name.upper()
                yield one, one.metadata["kind"], names.split()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables; raises SettingsError."""
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for one, kind, names in cls.declared():
            given = [name for name in names if environ.get(name, "").strip()]
            if kind.closes_access:  # A blank variable counts, and is an error.
                given = [name for name in names if name in environ]
            if given:
                sources[one.name] = given[0]
                values[one.name] = text = environ[given[0]].strip()
                with suppress(ValueError):
                    values[one.name] = kind.parse(text)
            elif one.default is MISSING:
                sources[one.name], values[one.name] = names[0], None
        # ServerSettings, or the host's server, reports an invalid WEB_CONCURRENCY.
        found = re.fullmatch("[1-9][0-9]{0,2}", environ.get("WEB_CONCURRENCY", "").strip())
        return cls(**values, sources=sources, processes=int(found[0]) if found else 1)

    def _value_problems(self) -> Iterator[str]:
        """Yield a line for each wrong value: name, problem, example."""
        for one, kind, _ in self.declared():
            value, name = getattr(self, one.name), self.sources.get(one.name)
            if value is None and one.default is None:
                continue
            try:
                kind.check(value)
            except ValueError as error:
                if name is None:
                    yield f"{one.name}: {error}"
                else:
                    example = f"; for example {name}={kind.example}" if kind.example else ""
                    yield f"{name} {'is not set' if value is None else error}{example}"

    def _combination_problems(self) -> Iterator[str]:
        """Yield a line for settings that don't go together, such as a part of an access key."""
        parts = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        key_id, secret, token = (getattr(self, one) for one in parts)
        names = [one.upper() if self.sources else one for one in parts]
        # "BUCKETEER_" for a value from Heroku's add-on, else "": id and secret must both have it.
        prefixes = [self.sources.get(one, "").partition("AWS_")[0] for one in parts]
        if secret and (not key_id or prefixes[0] > prefixes[1]):
            yield f"{prefixes[1]}{names[0]} is not set while {prefixes[1]}{names[1]} is"
        if key_id and (not secret or prefixes[1] > prefixes[0]):
            yield f"{prefixes[0]}{names[1]} is not set while {prefixes[0]}{names[0]} is"
        if token and (not key_id or prefixes[0]):
            yield f"{names[2]} is set while {names[0]} is not"
        if self.s3_unsigned and self.delivery == "redirect":
            yield "DELIVERY must be proxy if S3_UNSIGNED is true: presigning needs an access key"

    @property
    def store_connections(self) -> int:
        """Maximum connections to the store, for downloads and read-ahead together."""
        return self.max_downloads + self.read_ahead_bytes // READ_AHEAD_PIECE_BYTES

    @property
    def object_roots(self) -> Mapping[str, ObjectRoot]:
        """The roots in `s3_objects` by name; see `parse_roots`."""
        return parse_roots(self.s3_objects)

    @property
    def auth_mode(self) -> AuthMode:
        """How requests are authorized; of several ways, the first in the order below."""
        if self.access_tokens:
            return "token"
        if self.url_signing_keys:
            return "signature"
        return "application" if self.auth_url else "open"


def read_signing(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read only URL_SIGNING_KEYS and URL_MAX_LIFETIME; raises SettingsError.

    Signing needs no store, so all other settings have defaults and the bucket is a placeholder.
    """
    names = ("URL_SIGNING_KEYS", "URL_MAX_LIFETIME")
    found = {name: environ[name] for name in names if name in environ}
    settings = Settings.from_environ({"S3_IMAGE_BUCKET": "none", **found})
    if not settings.url_signing_keys:
        example = f"URL_SIGNING_KEYS={kinds.SIGNING_KEYS.example}"
        raise SettingsError([f"URL_SIGNING_KEYS is not set; for example {example}"])
    return settings


def downloads_in_memory(memory: int, processes: int, read_ahead: int) -> int:
    """Return how many downloads fit into 60 % of one process's share of `memory` bytes."""
    room = memory // max(processes, 1) - IDLE_BYTES - read_ahead
    return int(min(max(room * 0.6 / DOWNLOAD_BYTES, 16), 1000))


def memory_bytes(limits: tuple[str, ...] = MEMORY_LIMITS) -> int:
    """Return the bytes of memory of this machine, or of its container if that has less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in limits:
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # The file does not exist, or says "max".
            continue
    return min(sizes)
