"""The components that tests share, each started once."""

from __future__ import annotations

import gc
import socket
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from settings import Settings

from .support.components import BUCKET, Store, component, settings_for
from .support.misbehaving import Misbehaving, misbehaving
from .support.serving import RunningService, installed_into, serving

hypothesis.settings.register_profile("thorough", max_examples=5000)


@pytest.fixture
def anyio_backend() -> str:
    """Everything here runs on asyncio: uvicorn and both clients know nothing else."""
    return "asyncio"


@pytest.fixture(scope="session")
def store() -> Generator[Store]:
    """A real S3 server."""
    with component("store.py", BUCKET) as port:
        yield Store(port)


@pytest.fixture(scope="session")
def httpbin_url() -> Generator[str]:
    """A real httpbin."""
    with component("upstream.py") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def service(store: Store, httpbin_url: str) -> Generator[RunningService]:
    """The service before a real store and a real upstream."""
    settings = Settings(**store.settings, bytes_url=httpbin_url + "/stream-bytes/{size}?seed=7")
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="session")
def _misbehaving() -> Generator[Misbehaving]:
    with misbehaving() as server:
        yield server


@pytest.fixture(scope="session")
def troubled(_misbehaving: Misbehaving) -> Generator[RunningService]:
    """The service before a server that misbehaves as the test says (`upstream`)."""
    with serving(settings_for(_misbehaving.url, max_resumes=2)) as running:
        yield running


@pytest.fixture(scope="module", params=[True, False], ids=["direct", "full"])
def troubled_store(
    _misbehaving: Misbehaving, request: pytest.FixtureRequest
) -> Generator[RunningService]:
    """The service before a store that misbehaves, asked by ourselves and through botocore."""
    settings = settings_for(_misbehaving.url, max_resumes=2, s3_direct=request.param)
    with serving(settings) as running:
        yield running


@pytest.fixture
def upstream(_misbehaving: Misbehaving) -> Generator[Misbehaving]:
    """A server that misbehaves as the test says, as the store and as the other service."""
    _misbehaving.forget()
    yield _misbehaving
    _misbehaving.forget()


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def no_garbage_collection() -> Generator[None]:
    """Leave nothing to the collector: it would close later what nobody closed in time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed package, in a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    installed_into(target)
    return target
