"""Settings: reading and checking environment variables and values in code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import certifi
import pytest

from handlers.settings import downloads_in_memory, memory_bytes, read_signing
from settings import ServerSettings, Settings, SettingsError

BUCKET = {"S3_IMAGE_BUCKET": "photos"}


def load_problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        ServerSettings.from_environ(environ)
    return raised.value.problems


def test_bucket_alone_gives_the_defaults() -> None:
    """Every setting except the bucket has a default."""
    settings = ServerSettings.from_environ(BUCKET)
    assert settings == ServerSettings(s3_image_bucket="photos")
    assert Settings.from_environ(BUCKET) == Settings(s3_image_bucket="photos")
    assert settings.s3_image_key == "test/{task_id}/image.jpg"
    assert settings.bytes_url == "http://httpbin.org/stream-bytes/{size}"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.bytes_max_size == 1024**3


ALL_VARIABLES = {
    "S3_IMAGE_BUCKET": ("photos", "photos"),
    "S3_IMAGE_KEY": ("images/{task_id}.jpg", "images/{task_id}.jpg"),
    "S3_OBJECTS": (
        "photos=my-photos/public/, docs=other/",
        ("photos=my-photos/public/", "docs=other/"),
    ),
    "AWS_REGION": ("eu-central-1", "eu-central-1"),
    "AWS_ENDPOINT_URL_S3": ("http://store.example", "http://store.example"),
    "S3_ADDRESSING_STYLE": ("virtual", "virtual"),
    "AWS_TLS_VERIFY": (certifi.where(), certifi.where()),
    "S3_UNSIGNED": ("true", True),
    "S3_REQUESTER_PAYS": ("1", True),
    "S3_DIRECT": ("false", False),
    "AWS_ACCESS_KEY_ID": ("AKIA", "AKIA"),
    "AWS_SECRET_ACCESS_KEY": ("wJalr", "wJalr"),
    "AWS_SESSION_TOKEN": ("IQoJ", "IQoJ"),
    "IMAGE_CACHE_CONTROL": ("max-age=3600", "max-age=3600"),
    "S3_METADATA_HEADERS": ("owner, camera,", ("owner", "camera")),
    "DELIVERY": ("proxy", "proxy"),
    "REDIRECT_LIFETIME": ("60", 60),
    "BYTES_URL": ("https://files.example/{size}", "https://files.example/{size}"),
    "BYTES_MAX_SIZE": ("104857600", 104857600),
    "CORS_ORIGINS": ("https://a.example,*", ("https://a.example", "*")),
    "ACCESS_TOKENS": (
        "first-token-of-two,second/token+of~two==",
        ("first-token-of-two", "second/token+of~two=="),
    ),
    "URL_SIGNING_KEYS": (
        "new:0123456789abcdef,old:fedcba9876543210",
        ("new:0123456789abcdef", "old:fedcba9876543210"),
    ),
    "URL_MAX_LIFETIME": ("3600", 3600.0),
    "AUTH_URL": ("http://127.0.0.1:3000/auth?x=1", "http://127.0.0.1:3000/auth?x=1"),
    "AUTH_CACHE_SECONDS": ("0.5", 0.5),
    "METRICS_TOKENS": ("0123456789abcdef", ("0123456789abcdef",)),
    "UPSTREAM_CONNECT_TIMEOUT": ("0.5", 0.5),
    "UPSTREAM_READ_TIMEOUT": ("21", 21.0),
    "FIRST_BYTE_TIMEOUT": ("22", 22.0),
    "MAX_RESUMES": ("11", 11),
    "CLIENT_STALL_TIMEOUT": ("31", 31.0),
    "CLIENT_MIN_RATE": ("0", 0),
    "VERIFY_CHECKSUMS": ("TRUE", True),
    "MAX_DOWNLOADS": ("256", 256),
    "MAX_DOWNLOADS_PER_CLIENT": ("8", 8),
    "QUEUE_TIMEOUT": ("0", 0.0),
    "SHUTDOWN_GRACE": ("26", 26.0),
    "READ_AHEAD_CONNECTIONS": ("1", 1),
    "READ_AHEAD_BYTES": ("268435456", 268435456),
    "PROMETHEUS_MULTIPROC_DIR": ("/tmp/new-directory", "/tmp/new-directory"),
    "ENV_FILE": ("/etc/downspout.env", "/etc/downspout.env"),
    "HOST": ("::", "::"),
    "PORT": ("0", 0),
    "WEB_CONCURRENCY": ("2", 2),
    "FORWARDED_ALLOW_IPS": ("*", "*"),
    "KEEP_ALIVE_TIMEOUT": ("620", 620),
    "LOG_FORMAT": ("json", "json"),
    "LOG_LEVEL": ("warning", "warning"),
}


def test_variable_sets_its_setting_and_source() -> None:
    """Each environment variable sets its setting, and `sources` has the variable's name."""
    environ = {name: text for name, (text, _) in ALL_VARIABLES.items()}
    settings = ServerSettings.from_environ(environ)
    found = {
        names[0]: (settings.sources[one.name], getattr(settings, one.name))
        for one, _, names in settings.declared()
    }
    assert found == {name: (name, value) for name, (_, value) in ALL_VARIABLES.items()}


def test_example_of_each_kind_is_valid() -> None:
    """The example in an error message is a valid value."""
    for one, kind, _ in ServerSettings.declared():
        if kind.example and not kind.closes_access and one.name != "s3_tls_verify":
            kind.check(kind.parse(kind.example))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:9000",
        "https://s3.example.com.",
        "http://[::1]:9000",
        "http://10.0.0.1:9000/prefix",
        "https://s3.eu-central-1.amazonaws.com",
    ],
)
def test_endpoint_url_with_host_ip_port_or_path_is_accepted(url: str) -> None:
    """An endpoint URL may have a host name, an IP address, a port and a path."""
    settings = Settings.from_environ({**BUCKET, "AWS_ENDPOINT_URL": url})
    assert settings.s3_endpoint_url == url


def test_access_point_arn_is_accepted_as_bucket() -> None:
    """The ARN of an access point is accepted as S3_IMAGE_BUCKET."""
    arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/downloads"
    assert Settings.from_environ({"S3_IMAGE_BUCKET": arn}).s3_image_bucket == arn


@pytest.mark.parametrize(
    "name", ["S3_BUCKET", "AWS_S3_BUCKET_NAME", "BUCKET_NAME", "BUCKETEER_BUCKET_NAME"]
)
def test_bucket_variable_of_a_platform_is_read(name: str) -> None:
    """The bucket is read from each platform's variable, and `sources` has its name."""
    settings = Settings.from_environ({name: "photos"})
    assert settings.s3_image_bucket == "photos"
    assert settings.sources["s3_image_bucket"] == name


TIGRIS = {
    "BUCKET_NAME": "photos",
    "AWS_ENDPOINT_URL_S3": "https://fly.storage.tigris.dev",
    "AWS_ACCESS_KEY_ID": "tid_1",
    "AWS_SECRET_ACCESS_KEY": "tsec_1",
    "AWS_REGION": "auto",
}
RAILWAY = {
    "AWS_S3_BUCKET_NAME": "photos-x1",
    "AWS_ENDPOINT_URL": "https://storage.railway.app",
    "AWS_ACCESS_KEY_ID": "tid_2",
    "AWS_SECRET_ACCESS_KEY": "tsec_2",
    "AWS_DEFAULT_REGION": "auto",
    "AWS_S3_URL_STYLE": "virtual",
}
BUCKETEER = {
    "BUCKETEER_BUCKET_NAME": "bucketeer-1",
    "BUCKETEER_AWS_ACCESS_KEY_ID": "AKIA3",
    "BUCKETEER_AWS_SECRET_ACCESS_KEY": "theirs",
    "BUCKETEER_AWS_REGION": "us-east-1",
}
AWS_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIA4",
    "AWS_SECRET_ACCESS_KEY": "mine",
    "AWS_SESSION_TOKEN": "token",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
}


def aws_values(settings: Settings) -> list[str | None]:
    keys = [settings.aws_access_key_id, settings.aws_secret_access_key]
    return [*keys, settings.aws_session_token, settings.s3_region]


@pytest.mark.parametrize("environ", [TIGRIS, RAILWAY, BUCKETEER])
def test_platform_variables_are_all_used(environ: dict[str, str]) -> None:
    """Each variable that Fly, Railway and Bucketeer set for a bucket is used."""
    settings = Settings.from_environ(environ)
    assert set(settings.sources.values()) == set(environ)
    used = {str(getattr(settings, name)) for name in settings.sources}
    assert used == set(environ.values())


def test_aws_credentials_take_precedence_over_bucketeer() -> None:
    """If AWS_* and BUCKETEER_AWS_* are both set, AWS_* is used."""
    ours = ["AKIA4", "mine", "token", "eu-central-1"]
    assert aws_values(Settings.from_environ({**AWS_CREDENTIALS, **BUCKETEER})) == ours
    regions = {**BUCKETEER, "BUCKETEER_AWS_REGION": "", "AWS_REGION": "eu-west-1"}
    assert aws_values(Settings.from_environ(regions)) == ["AKIA3", "theirs", None, "eu-west-1"]


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID is not set while AWS_SECRET_ACCESS_KEY is"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY is not set while AWS_ACCESS_KEY_ID is"),
    ],
)
def test_half_of_a_credential_pair_is_an_error(missing: str, line: str) -> None:
    """An access key without its own secret, or a secret without its key, is one error."""
    both = {**AWS_CREDENTIALS, **BUCKETEER, "AWS_SESSION_TOKEN": "", missing: ""}
    assert load_problems(both) == [line]
    alone = {**BUCKET, **AWS_CREDENTIALS, "AWS_SESSION_TOKEN": "", missing: ""}
    assert load_problems(alone) == [line]
    theirs = {**BUCKETEER, f"BUCKETEER_{missing}": ""}
    assert load_problems(theirs) == [line.replace("AWS_", "BUCKETEER_AWS_")]


def test_session_token_without_access_key_is_an_error() -> None:
    """AWS_SESSION_TOKEN without AWS_ACCESS_KEY_ID is an error."""
    line = "AWS_SESSION_TOKEN is set while AWS_ACCESS_KEY_ID is not"
    assert load_problems({**BUCKETEER, "AWS_SESSION_TOKEN": "token"}) == [line]
    assert load_problems({**BUCKET, "AWS_SESSION_TOKEN": "token"}) == [line]


def test_railway_url_style_is_read_as_virtual() -> None:
    """Each of Railway's words for virtual-hosted addressing is accepted."""
    for text in ("virtual", "virtual-host", "virtual-hosted"):
        settings = Settings.from_environ({**RAILWAY, "AWS_S3_URL_STYLE": text})
        assert settings.s3_addressing_style == "virtual"


def test_first_of_several_variables_is_used() -> None:
    """If several variables for one setting are set, the first one is used."""
    environ = {"BUCKET_NAME": "theirs", "S3_IMAGE_BUCKET": "ours"}
    environ |= {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-central-1"}
    settings = Settings.from_environ(environ)
    assert (settings.s3_image_bucket, settings.s3_region) == ("ours", "eu-central-1")


def test_blank_variable_counts_as_unset() -> None:
    """A blank variable counts as unset."""
    settings = ServerSettings.from_environ({**BUCKET, "PORT": "", "AWS_REGION": "  "})
    assert (settings.port, settings.s3_region) == (8000, None)


def test_several_errors_are_reported_together() -> None:
    """Each wrong variable has one line with its name, the problem and an example."""
    lines = load_problems(
        {"PORT": "eighty", "MAX_DOWNLOADS": "0", "AWS_REGION": "-", "QUEUE_TIMEOUT": "soon"}
    )
    assert lines == [
        "S3_IMAGE_BUCKET is not set; for example S3_IMAGE_BUCKET=photos",
        "AWS_REGION must be the name of a region; for example AWS_REGION=eu-central-1",
        "MAX_DOWNLOADS must be a whole number from 1 to 100000",
        "QUEUE_TIMEOUT must be a number of seconds from 0 to 300",
        "PORT must be a whole number from 0 to 65535",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3_IMAGE_BUCKET", "two words"),
        ("S3_IMAGE_BUCKET", "a/b"),
        ("S3_IMAGE_KEY", "{task}/image.jpg"),
        ("S3_IMAGE_KEY", "{task_id/image.jpg"),
        ("S3_IMAGE_KEY", "{task_id.__class__}"),
        ("S3_IMAGE_KEY", "{task_id!r}"),
        ("S3_IMAGE_KEY", "{task_id:>999999999}"),
        ("S3_IMAGE_KEY", "{}"),
        ("S3_IMAGE_KEY", "../{task_id}"),
        ("S3_IMAGE_KEY", "a/./{task_id}"),
        ("S3_IMAGE_KEY", "{task_id}\x01"),
        ("S3_IMAGE_KEY", "k" * 1020 + "{task_id}"),
        ("AWS_REGION", "eu west"),
        ("AWS_REGION", "-eu"),
        ("AWS_REGION", "12"),
        ("S3_IMAGE_BUCKET", "arn:aws:s3:::photos"),
        ("AWS_ENDPOINT_URL_S3", "http://my_minio:9000"),
        ("AWS_ENDPOINT_URL_S3", "store.example"),
        ("AWS_ENDPOINT_URL_S3", "ftp://store.example"),
        ("AWS_ENDPOINT_URL_S3", "http://store.example:port"),
        ("AWS_ENDPOINT_URL_S3", "http://store.example/ /"),
        ("AWS_ENDPOINT_URL_S3", "http://[::1"),
        ("S3_ADDRESSING_STYLE", "sideways"),
        ("S3_IMAGE_BUCKET", ".."),
        ("S3_IMAGE_KEY", "caf\udce9/{task_id}"),
        ("AWS_ENDPOINT_URL_S3", "http://store.example/?x=1"),
        ("AWS_ENDPOINT_URL_S3", "http://user:pa55@store.example"),
        ("AWS_ENDPOINT_URL_S3", "http://" + "a" * 60 + "_minio:9000"),
        ("AWS_TLS_VERIFY", "/no/such/bundle.pem"),
        ("AWS_TLS_VERIFY", "/etc/passwd"),
        ("BYTES_URL", "http://a..b/{size}"),
        ("BYTES_URL", "http://127.0.0.1:{size}/"),
        ("BYTES_URL", "http://{task_id}.example/"),
        ("BYTES_URL", "http://a.example/caf\udce9/{size}"),
        ("BYTES_URL", "http://upstream.example/{user}"),
        ("BYTES_URL", "/{size}"),
        ("BYTES_URL", "http:///{size}"),
        ("IMAGE_CACHE_CONTROL", "max-age=60\nx: y"),
        ("S3_METADATA_HEADERS", "owner,two words"),
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("BYTES_MAX_SIZE", "-1"),
        ("BYTES_MAX_SIZE", "9" * 5000),
        ("BYTES_MAX_SIZE", "\u0663"),
        ("HOST", "not a host"),
        ("PORT", "65536"),
        ("PORT", "8000.5"),
        ("WEB_CONCURRENCY", "0"),
        ("FORWARDED_ALLOW_IPS", "everyone"),
        ("KEEP_ALIVE_TIMEOUT", "0"),
        ("UPSTREAM_CONNECT_TIMEOUT", "0"),
        ("UPSTREAM_READ_TIMEOUT", "nan"),
        ("FIRST_BYTE_TIMEOUT", "inf"),
        ("QUEUE_TIMEOUT", "soon"),
        ("SHUTDOWN_GRACE", "-1"),
        ("PROMETHEUS_MULTIPROC_DIR", "/no/such/directory"),
        ("PROMETHEUS_MULTIPROC_DIR", "/etc/passwd"),
        ("PROMETHEUS_MULTIPROC_DIR", "/etc/passwd/metrics"),
    ],
)
def test_wrong_variable_value_is_one_line(name: str, value: str) -> None:
    """A wrong value is one line that begins with the name of its variable."""
    [line] = load_problems({**BUCKET, name: value})
    assert line.startswith(f"{name} ")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "s3cr3t"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s3 cr3t"}, "AWS_SECRET_"),
    ],
)
def test_invalid_credentials_are_one_line_without_the_secret(
    environ: dict[str, str], name: str
) -> None:
    """Invalid credentials are one line that does not contain the secret."""
    [line] = load_problems({**BUCKET, **environ})
    assert line.startswith(name)
    assert "s3 cr3t" not in line
    assert "s3cr3t" not in line


def test_repr_of_settings_has_no_credentials() -> None:
    """The repr of settings contains no credential."""
    secrets = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    url = "http://user:pa55@upstream.example/{size}"
    settings = Settings.from_environ({**BUCKET, **secrets, "BYTES_URL": url})
    assert not [word for word in ("AKIA1", "s3cr3t", "pa55") if word in repr(settings)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_resumes", "8000"),
        ("max_resumes", True),
        ("queue_timeout", True),
        ("max_downloads", 0),
        ("read_ahead_bytes", "64"),
        ("upstream_read_timeout", "5"),
        ("s3_image_bucket", None),
        ("s3_image_key", ""),
        ("s3_endpoint_url", 5),
        ("s3_tls_verify", 5),
    ],
)
def test_wrong_value_in_code_raises_settings_error(name: str, value: object) -> None:
    """A wrong value in code raises SettingsError with the name of the setting."""
    values: dict[str, object] = {"s3_image_bucket": "photos", name: value}
    with pytest.raises(SettingsError, match=f"^{name}: must") as raised:
        Settings(**values)  # type: ignore[arg-type]
    assert len(raised.value.problems) == 1


def test_half_of_the_credentials_in_code_raises() -> None:
    """Half of the credentials in code raises SettingsError."""
    with pytest.raises(
        SettingsError, match=r"^aws_secret_access_key is not set while aws_access_key_id is$"
    ):
        Settings(s3_image_bucket="photos", aws_access_key_id="AKIA")


def test_tls_verify_accepts_a_boolean_or_a_file() -> None:
    """AWS_TLS_VERIFY is true, false, or the path of a CA bundle."""
    bundle = certifi.where()
    for text, value in {"true": True, "FALSE": False, "0": False, bundle: bundle}.items():
        assert Settings.from_environ({**BUCKET, "AWS_TLS_VERIFY": text}).s3_tls_verify == value


def test_setting_assignment_raises() -> None:
    """Assigning a setting after creation raises FrozenInstanceError."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings(s3_image_bucket="photos").max_resumes = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("processes", "ahead", "downloads"),
    [(1, 0, 249), (1, 64, 211), (1, 200, 129), (2, 0, 96), (3, 64, 16)],
)
def test_default_max_downloads_fits_the_memory(processes: int, ahead: int, downloads: int) -> None:
    """The default of MAX_DOWNLOADS fits into 512 MiB, minus processes and read-ahead."""
    assert downloads_in_memory(512 << 20, processes, ahead << 20) == downloads


def test_memory_limit_of_the_container_is_used(tmp_path: Path) -> None:
    """The lowest cgroup limit is used; "max" and a missing file are no limit."""
    limit, none = tmp_path / "memory.max", tmp_path / "max"
    limit.write_text(f"{512 << 20}\n")
    none.write_text("max\n")
    assert memory_bytes((str(none), str(limit), str(tmp_path / "missing"))) == 512 << 20
    assert memory_bytes((str(none),)) > 512 << 20


@pytest.mark.parametrize(("text", "processes"), [("", 1), (" 256 ", 256), ("all", 1), ("0", 1)])
def test_default_max_downloads_is_divided_by_processes(text: str, processes: int) -> None:
    """The default of MAX_DOWNLOADS divides the memory by WEB_CONCURRENCY."""
    ahead = {"READ_AHEAD_BYTES": "0"}
    settings = Settings.from_environ({**BUCKET, **ahead, "WEB_CONCURRENCY": text})
    assert settings.max_downloads == downloads_in_memory(memory_bytes(), processes, 0)
    in_code = Settings(s3_image_bucket="photos", read_ahead_bytes=0, processes=processes)
    assert in_code.max_downloads == settings.max_downloads
    assert dataclasses.replace(in_code, max_resumes=1).max_downloads == settings.max_downloads


def test_store_connections_include_read_ahead() -> None:
    """The pool has one connection for each download and each MiB of read-ahead."""
    settings = Settings(s3_image_bucket="photos", max_downloads=100, read_ahead_bytes=64 << 20)
    assert settings.store_connections == 164


def test_signing_settings_ignore_other_variables() -> None:
    """`read_signing` needs no bucket, and ignores errors in other variables."""
    keys = {"URL_SIGNING_KEYS": "a:0123456789abcdef"}
    settings = read_signing({**keys, "URL_MAX_LIFETIME": "60", "PORT": "x", "MAX_RESUMES": "x"})
    assert settings.url_signing_keys == ("a:0123456789abcdef",)
    assert settings.url_max_lifetime == 60
    with pytest.raises(SettingsError, match=r"^URL_SIGNING_KEYS is not set; for example"):
        read_signing({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCESS_TOKENS", ","),
        ("ACCESS_TOKENS", "x" * 16 + "==="),
        ("ACCESS_TOKENS", "0123456789abcdef,"),
        ("ACCESS_TOKENS", "0123456789abcde"),
        ("ACCESS_TOKENS", "0123456789 abcdef"),
        ("ACCESS_TOKENS", "0123456789abcdef\u00e9"),
        ("ACCESS_TOKENS", "4f8c..."),
        ("METRICS_TOKENS", "short"),
        ("URL_SIGNING_KEYS", "0123456789abcdef"),
        ("URL_SIGNING_KEYS", "a:0123456789abcde"),
        ("URL_SIGNING_KEYS", ":0123456789abcdef"),
        ("URL_SIGNING_KEYS", "a b:0123456789abcdef"),
        ("URL_SIGNING_KEYS", "a:0123456789abcdef,a:fedcba9876543210"),
        ("URL_SIGNING_KEYS", "2026a:9b1d..."),
        ("URL_MAX_LIFETIME", "0"),
        ("MAX_DOWNLOADS_PER_CLIENT", "0"),
    ],
)
def test_invalid_access_setting_is_an_error(name: str, value: str) -> None:
    """An invalid token or key is an error, and the error does not contain the value."""
    [line] = load_problems({**BUCKET, name: value})
    assert line.startswith(f"{name} must")
    assert len(value) < 10 or value not in line.partition("; for example")[0]


@pytest.mark.parametrize("name", ["ACCESS_TOKENS", "URL_SIGNING_KEYS", "METRICS_TOKENS"])
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_blank_access_setting_is_an_error(name: str, value: str) -> None:
    """A blank ACCESS_TOKENS, URL_SIGNING_KEYS or METRICS_TOKENS is an error."""
    [line] = load_problems({**BUCKET, name: value})
    assert line.startswith(f"{name} is blank")


def test_repr_of_settings_has_no_tokens_or_keys() -> None:
    """The repr of settings contains no token and no signing key."""
    token, pair = "token-0123456789abcdef", "a:secret-0123456789abcdef"
    settings = Settings(
        s3_image_bucket="photos",
        access_tokens=(token,),
        metrics_tokens=(token,),
        url_signing_keys=(pair,),
    )
    assert "0123456789abcdef" not in repr(settings)
    assert settings.auth_mode == "token"


def test_string_as_access_tokens_in_code_raises() -> None:
    """A string instead of a tuple of tokens raises SettingsError."""
    with pytest.raises(SettingsError, match="access_tokens: must be tokens"):
        Settings(s3_image_bucket="photos", access_tokens="0123456789abcdef")  # type: ignore[arg-type]
