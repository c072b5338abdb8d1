"""Settings: read in one place, checked, all problems reported at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import certifi
import pytest

from settings import Settings, SettingsError, variable_of, variables

BUCKET = {"S3_IMAGE_BUCKET": "photos"}
TOKEN_PROBLEM = (
    "AWS_SESSION_TOKEN is set without an access key id; for example AWS_SESSION_TOKEN=IQoJb3..."
)


def problems_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ)
    return raised.value.problems


def test_bucket_is_enough() -> None:
    """Everything but the bucket has a default, the design's."""
    settings = Settings.from_environ(BUCKET)
    assert settings == Settings(s3_image_bucket="photos")
    assert settings.s3_image_key == "test/{task_id}/image.jpg"
    assert settings.bytes_url == "http://httpbin.org/stream-bytes/{size}"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.bytes_max_size == 1024**3


def test_every_variable_is_read() -> None:
    """Each variable's example is a right value, and reaches the setting.

    Not those that hold secrets: one that stands in a message would be used.
    """
    others = {
        "AWS_TLS_VERIFY": certifi.where(),
        "ACCESS_TOKENS": "first-token-of-two,second/token+of~two==",
        "URL_SIGNING_KEYS": "new:0123456789abcdef,old:fedcba9876543210",
        "METRICS_TOKENS": "0123456789abcdef",
    }
    environ = {
        name: others.get(name, variable_of(setting).example)
        for setting in variables()
        for name in variable_of(setting).names[:1]
    }
    settings = Settings.from_environ(environ)
    for setting in variables():
        how = variable_of(setting)
        name = how.names[0]
        assert getattr(settings, setting.name) == how.value_of(environ[name]), name
        assert settings.sources[setting.name] == name


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
def test_endpoint_as_people_have_them(url: str) -> None:
    """Host names, IPv4 and IPv6 addresses, ports and paths are all right for a store."""
    settings = Settings.from_environ({**BUCKET, "AWS_ENDPOINT_URL": url})
    assert settings.s3_endpoint_url == url


def test_access_point_instead_of_a_bucket() -> None:
    """The ARN of an access point is as good as a bucket's name."""
    arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/downloads"
    assert Settings.from_environ({"S3_IMAGE_BUCKET": arn}).s3_image_bucket == arn


@pytest.mark.parametrize(
    "name", ["S3_BUCKET", "AWS_S3_BUCKET_NAME", "BUCKET_NAME", "BUCKETEER_BUCKET_NAME"]
)
def test_bucket_under_the_names_that_platforms_give_it(name: str) -> None:
    """A bucket is found under each of its names, and the settings say which it was."""
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
OTHERS = {
    "AWS_ACCESS_KEY_ID": "AKIA4",
    "AWS_SECRET_ACCESS_KEY": "mine",
    "AWS_SESSION_TOKEN": "token",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
}


def keys_of(settings: Settings) -> list[str | None]:
    keys = [settings.aws_access_key_id, settings.aws_secret_access_key]
    return [*keys, settings.aws_session_token, settings.s3_region]


@pytest.mark.parametrize("environ", [TIGRIS, RAILWAY, BUCKETEER])
def test_what_a_platform_sets_works_as_it_comes(environ: dict[str, str]) -> None:
    """Each variable that Fly, Railway and Heroku's Bucketeer set for a bucket is used."""
    settings = Settings.from_environ(environ)
    assert set(settings.sources.values()) == set(environ)
    used = {str(getattr(settings, name)) for name in settings.sources}
    assert used == set(environ.values())


def test_keys_are_those_of_the_bucket() -> None:
    """Keys and region for another purpose, which an application may have, are left alone."""
    ours = [OTHERS["AWS_ACCESS_KEY_ID"], OTHERS["AWS_SECRET_ACCESS_KEY"], "token", "eu-central-1"]
    theirs = ["AKIA3", "theirs", None, "us-east-1"]
    both = {**OTHERS, **BUCKETEER}
    assert keys_of(Settings.from_environ(both)) == theirs
    assert keys_of(Settings.from_environ({**both, "S3_BUCKET": "bucketeer-1"})) == theirs
    assert keys_of(Settings.from_environ({**both, **BUCKET})) == ours
    assert keys_of(Settings.from_environ({**BUCKETEER, **BUCKET})) == [None] * 4


def test_what_the_bucket_has_none_of_is_found_elsewhere() -> None:
    """A bucket of Bucketeer's alone, without its keys, is one to which others have access."""
    environ = {**OTHERS, "BUCKETEER_BUCKET_NAME": "bucketeer-1"}
    assert keys_of(Settings.from_environ(environ))[:2] == ["AKIA4", "mine"]
    keys = {**BUCKETEER, "BUCKETEER_AWS_REGION": "", "AWS_REGION": "eu-west-1"}
    assert keys_of(Settings.from_environ(keys)) == ["AKIA3", "theirs", None, "eu-west-1"]


@pytest.mark.parametrize(
    ("missing", "bucket"),
    [
        ("BUCKETEER_AWS_ACCESS_KEY_ID", {}),
        ("BUCKETEER_AWS_SECRET_ACCESS_KEY", {}),
        ("AWS_ACCESS_KEY_ID", BUCKET),
        ("AWS_SECRET_ACCESS_KEY", BUCKET),
    ],
)
def test_halves_of_two_pairs_are_no_pair(missing: str, bucket: dict[str, str]) -> None:
    """Half of the bucket's pair is not completed by half of another: one line says what lacks."""
    environ = {**OTHERS, **BUCKETEER, **bucket, "AWS_SESSION_TOKEN": "", missing: ""}
    [line] = problems_of(environ)
    assert line.startswith(f"{missing} is not set while the ")


def test_railways_longer_word_for_a_style() -> None:
    """Railway's word for where the bucket's name goes is understood in each of its forms."""
    for text in ("virtual", "virtual-host", "virtual-hosted"):
        settings = Settings.from_environ({**RAILWAY, "AWS_S3_URL_STYLE": text})
        assert settings.s3_addressing_style == "virtual"


def test_first_name_wins() -> None:
    """Of several names the first one counts: our own, then the more special one."""
    environ = {"BUCKET_NAME": "theirs", "S3_IMAGE_BUCKET": "ours"}
    environ |= {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-central-1"}
    settings = Settings.from_environ(environ)
    assert (settings.s3_image_bucket, settings.s3_region) == ("ours", "eu-central-1")


def test_blank_is_not_set() -> None:
    """A blank variable, as compose files and dashboards leave behind, is one that is not set."""
    settings = Settings.from_environ({**BUCKET, "PORT": "", "AWS_REGION": "  "})
    assert (settings.port, settings.s3_region) == (8000, None)


def test_all_problems_come_at_once() -> None:
    """Each wrong variable has its line, with its name, the problem and an example."""
    lines = problems_of({"PORT": "eighty", "MAX_DOWNLOADS": "0", "AWS_SESSION_TOKEN": "t"})
    assert lines == [
        "S3_IMAGE_BUCKET is not set; for example S3_IMAGE_BUCKET=photos",
        "PORT must be a whole number; for example PORT=8000",
        "MAX_DOWNLOADS must be a whole number from 1 to 100000; for example MAX_DOWNLOADS=256",
        TOKEN_PROBLEM,
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
        ("UPSTREAM_CONNECT_TIMEOUT", "0"),
        ("UPSTREAM_READ_TIMEOUT", "nan"),
        ("FIRST_BYTE_TIMEOUT", "inf"),
        ("QUEUE_TIMEOUT", "soon"),
        ("SHUTDOWN_GRACE", "-1"),
    ],
)
def test_wrong_value(name: str, value: str) -> None:
    """Whatever is wrong in a variable is one line that begins with its name."""
    [line] = problems_of({**BUCKET, name: value})
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
def test_credentials_that_can_not_be(environ: dict[str, str], name: str) -> None:
    """Half of a pair is a problem of its own, and no secret stands in its line."""
    lines = problems_of({**BUCKET, **environ})
    assert lines[0].startswith(name)
    assert "s3 cr3t" not in "".join(lines)
    assert "s3cr3t" not in "".join(lines)


def test_secrets_are_not_shown() -> None:
    """The representation of settings has no credential in it."""
    secrets = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    url = "http://user:pa55@upstream.example/{size}"
    settings = Settings.from_environ({**BUCKET, **secrets, "BYTES_URL": url})
    assert not [word for word in ("AKIA1", "s3cr3t", "pa55") if word in repr(settings)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "8000"),
        ("port", True),
        ("upstream_read_timeout", "5"),
        ("s3_image_bucket", None),
        ("s3_image_key", ""),
        ("s3_endpoint_url", 5),
        ("s3_tls_verify", None),
    ],
)
def test_wrong_value_in_code(name: str, value: object) -> None:
    """An embedder's values are checked as the environment's are, under the setting's name."""
    values: dict[str, object] = {"s3_image_bucket": "photos", name: value}
    with pytest.raises(SettingsError, match=f"^{name}: must") as raised:
        Settings(**values)  # type: ignore[arg-type]
    assert len(raised.value.problems) == 1


def test_half_of_the_credentials_in_code() -> None:
    """Settings that are right alone and wrong together are found in code, too."""
    with pytest.raises(SettingsError, match="aws_secret_access_key: is not set"):
        Settings(s3_image_bucket="photos", aws_access_key_id="AKIA")


def test_tls_verify_is_a_switch_or_a_bundle() -> None:
    """Verification can be on, off, or by a bundle of one's own."""
    bundle = certifi.where()
    for text, value in {"true": True, "FALSE": False, "0": False, bundle: bundle}.items():
        assert Settings.from_environ({**BUCKET, "AWS_TLS_VERIFY": text}).s3_tls_verify == value


def test_settings_are_frozen() -> None:
    """Nobody changes a setting while the service runs."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings(s3_image_bucket="photos").port = 1  # type: ignore[misc]


@pytest.mark.parametrize(("ahead", "downloads"), [("0", 249), ("64", 211), ("200", 129)])
def test_default_of_downloads_fits_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ahead: str, downloads: int
) -> None:
    """Of 512 MiB an idle process and what is read ahead are taken off, and 40 % of the rest."""
    limit = tmp_path / "memory.max"
    limit.write_text(f"{512 << 20}\n")
    monkeypatch.setattr("settings.MEMORY_LIMITS", (str(limit),))
    environ = {**BUCKET, "READ_AHEAD_BYTES": str(int(ahead) << 20)}
    settings = Settings.from_environ(environ)
    assert settings.max_downloads == downloads
    assert settings.store_connections == downloads + int(ahead)


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
def test_access_that_is_set_wrong_is_not_left_open(name: str, value: str) -> None:
    """What was meant to close downloads and can't is an error, which does not repeat it."""
    [line] = problems_of({**BUCKET, name: value})
    assert line.startswith(f"{name} must")
    assert len(value) < 10 or value not in line.partition("; for example")[0]


@pytest.mark.parametrize("name", ["ACCESS_TOKENS", "URL_SIGNING_KEYS", "METRICS_TOKENS"])
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_access_that_is_set_to_nothing_is_not_left_open(name: str, value: str) -> None:
    """A command that made no secret, or a variable that was not passed on, opens nothing."""
    [line] = problems_of({**BUCKET, name: value})
    assert line.startswith(f"{name} is set to nothing")


def test_secrets_of_access_are_in_no_repr() -> None:
    """Settings can be shown in a traceback."""
    token, pair = "token-0123456789abcdef", "a:secret-0123456789abcdef"
    settings = Settings(
        s3_image_bucket="photos",
        access_tokens=(token,),
        metrics_tokens=(token,),
        url_signing_keys=(pair,),
    )
    assert "0123456789abcdef" not in repr(settings)
    assert settings.auth_mode == "token"


def test_tokens_in_code_are_a_tuple() -> None:
    """A text would be tokens of a letter each."""
    with pytest.raises(SettingsError, match="access_tokens: must be tokens"):
        Settings(s3_image_bucket="photos", access_tokens="0123456789abcdef")  # type: ignore[arg-type]
