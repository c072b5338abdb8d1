"""The certificate of a store that a private authority has certified."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from pathlib import Path
from typing import Any

import certifi
import pytest

from handlers import CannotStart, create_app
from tests.support.certificates import certified_server
from tests.support.components import settings_for
from tests.support.misbehaving import Misbehaving, answer_with, running
from tests.support.serving import serving

IMAGE = "/tasks/1/image"

both_paths = pytest.mark.parametrize("s3_direct", [True, False], ids=["direct", "botocore"])


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Return the CA bundle of a private authority, and a TLS context that it has certified."""
    return certified_server(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_store(certified: tuple[Path, ssl.SSLContext]) -> Generator[Misbehaving]:
    """Run a store that speaks TLS."""
    with running(Misbehaving(answer_with(200, b"12345"), tls=certified[1])) as store:
        yield store


@pytest.fixture
def bundle(certified: tuple[Path, ssl.SSLContext]) -> str:
    return str(certified[0])


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variables that name a CA bundle."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def image_status(store: Misbehaving, **changes: Any) -> list[int]:
    """Return the statuses of a GET and a HEAD of an image of the store."""
    with serving(settings_for(store.url, **changes)) as service:
        return [service.request(method, IMAGE).status_code for method in ("GET", "HEAD")]


@both_paths
@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_ca_bundle_variable_is_trusted(
    tls_store: Misbehaving,
    bundle: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    s3_direct: bool,
) -> None:
    """A store that the authority of AWS_CA_BUNDLE has certified serves images."""
    monkeypatch.setenv(name, bundle)
    assert image_status(tls_store, s3_direct=s3_direct) == [200, 200]


@both_paths
def test_ca_bundle_of_the_profile_is_trusted(
    tls_store: Misbehaving,
    bundle: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    s3_direct: bool,
) -> None:
    """A store that the authority of the profile's ca_bundle has certified serves images."""
    config = tmp_path / "config"
    config.write_text(f"[profile store]\nca_bundle = {bundle}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "store")
    assert image_status(tls_store, s3_direct=s3_direct) == [200, 200]


@both_paths
def test_unknown_authority_returns_502(tls_store: Misbehaving, s3_direct: bool) -> None:
    """Without a bundle that has it, a private authority is not trusted."""
    assert image_status(tls_store, s3_direct=s3_direct) == [502, 502]


@both_paths
def test_tls_verify_takes_precedence_over_ca_bundle(
    tls_store: Misbehaving, bundle: str, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """AWS_TLS_VERIFY wins over AWS_CA_BUNDLE: true, false and a bundle of its own."""
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    assert image_status(tls_store, s3_direct=s3_direct, s3_tls_verify=True) == [502, 502]
    monkeypatch.setenv("AWS_CA_BUNDLE", certifi.where())
    for verify in (bundle, False):
        found = image_status(tls_store, s3_direct=s3_direct, s3_tls_verify=verify)
        assert found == [200, 200]


def test_blank_ca_bundle_counts_as_unset(
    tls_store: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a blank AWS_CA_BUNDLE the usual authorities are trusted, and the service starts."""
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    assert image_status(tls_store) == [502, 502]


@pytest.mark.parametrize("path", ["/no/such/bundle.pem", "/etc/passwd"])
async def test_unreadable_ca_bundle_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """If AWS_CA_BUNDLE is no readable bundle, the start fails with a line that names it."""
    monkeypatch.setenv("AWS_CA_BUNDLE", path)
    app = create_app(settings_for("https://127.0.0.1:9"))
    with pytest.raises(CannotStart, match=r"AWS_CA_BUNDLE.* must be the path of a readable"):
        async with app.router.lifespan_context(app):
            pass
