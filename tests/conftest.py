"""Fixtures that all tests share: the store, the upstreams, and the service in front of them."""

import functools
import gc
import socket
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import botocore.session
import hypothesis
import pytest
from botocore.loaders import create_loader

from .support.application import allow
from .support.certificates import Authority
from .support.components import BUCKET, Store, component, settings_for
from .support.main import RunMain, run_main_with
from .support.metrics import metrics_after_trouble
from .support.misbehaving import Misbehaving, misbehaving
from .support.serving import RunningService, ServicePool, ServiceWith, installed_into, wait_until

hypothesis.settings.register_profile("thorough", max_examples=5000)
hypothesis.settings.register_profile("quick", max_examples=10)  # for scripts/pythons


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: uvicorn, aiohttp and aiobotocore know no other backend."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _botocore_data() -> Generator[None]:
    """Let all botocore sessions share the data files that one of them has read.

    Otherwise the start of each service reads the files again, which takes 0.15 seconds of CPU.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(create_loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def _ca_bundle(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Give all services in threads a CA bundle with one certificate.

    The roots of this machine or of certifi would take 0.02 to 0.05 seconds of CPU at each start.
    """
    with pytest.MonkeyPatch.context() as patch:
        bundle = Authority(tmp_path_factory.mktemp("authority")).bundle
        patch.setenv("AWS_CA_BUNDLE", str(bundle))
        yield


@pytest.fixture(scope="session")
def store() -> Generator[Store]:
    """Run moto's S3 server."""
    with component("store.py", BUCKET) as port:
        yield Store(port)


@pytest.fixture(scope="session")
def httpbin_url() -> Generator[str]:
    """Run httpbin."""
    with component("upstream.py") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def _misbehaving() -> Generator[Misbehaving]:
    with misbehaving() as server:
        yield server


@pytest.fixture
def upstream(_misbehaving: Misbehaving) -> Generator[Misbehaving]:
    """Return a server whose behaviour the test sets; the service has it as store and upstream."""
    _misbehaving.forget()
    yield _misbehaving
    _misbehaving.forget()


@pytest.fixture(scope="session")
def _application() -> Generator[Misbehaving]:
    with misbehaving() as server:
        yield server


@pytest.fixture
def application(_application: Misbehaving) -> Generator[Misbehaving]:
    """Return a server for AUTH_URL, which lets every request in until the test says otherwise."""
    _application.forget()
    _application.behaviour = allow
    yield _application
    _application.forget()


@pytest.fixture(scope="session")
def _services() -> Generator[ServicePool]:
    with closing(ServicePool()) as pool:
        yield pool


@pytest.fixture
def service_with(_services: ServicePool, upstream: Misbehaving) -> Generator[ServiceWith]:
    """Return a function that returns a running service: ``service_with(max_resumes=2)``.

    It takes the changes to the default settings. Store and upstream are the server of the
    fixture `upstream`; the argument `url` names another one, `http` uvicorn's other protocol.
    Tests with equal settings share a service: a test that drains it, or that counts from zero,
    starts its own with `serving`. At its end each test has given back all connections.
    """
    used: list[RunningService] = []

    def get(url: str = "", *, http: str = "httptools", **changes: Any) -> RunningService:
        settings = settings_for(url or upstream.url, **changes)
        used.append(_services.get(settings, http=http))
        return used[-1]

    yield get
    wait_until(lambda: not any(service.acquired_connections() for service in used))


@pytest.fixture(scope="session")
def service(_services: ServicePool, store: Store, httpbin_url: str) -> RunningService:
    """Run the service in front of a real store and a real upstream."""
    bytes_url = httpbin_url + "/stream-bytes/{size}?seed=7"
    return _services.get(settings_for(store.url, bytes_url=bytes_url))


@pytest.fixture
def troubled(_services: ServicePool, upstream: Misbehaving) -> RunningService:
    """Run the service in front of `upstream`."""
    return _services.get(settings_for(upstream.url, max_resumes=2))


@pytest.fixture(params=[True, False], ids=["direct", "full"])
def troubled_store(
    _services: ServicePool, upstream: Misbehaving, request: pytest.FixtureRequest
) -> RunningService:
    """Run the service in front of `upstream`, with our own S3 requests and with botocore's."""
    settings = settings_for(upstream.url, max_resumes=2, s3_direct=request.param)
    return _services.get(settings)


@pytest.fixture(scope="session")
def metrics_text(_misbehaving: Misbehaving) -> str:
    """Return the text of /metrics after a download that was retried, broke and was resumed."""
    return metrics_after_trouble(_misbehaving)


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunMain:
    """Return a function that runs service.py's command here: ``run_main("sign", URL, HOST="x")``.

    It takes the arguments and the whole environment, and returns the exit code and the outputs.
    It is for a command that ends by itself: a process takes 1 second of CPU, this 0.01.
    """
    return functools.partial(run_main_with, monkeypatch, capsys)


@pytest.fixture
def unused_port() -> int:
    """Return a port of loopback that no process listens on, for a server to be started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def unreachable_url() -> Generator[str]:
    """Return a URL whose port refuses every connection: it is bound, and never listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def no_garbage_collection() -> Generator[None]:
    """Switch the garbage collector off, so that it closes nothing that the code left open."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder."""
    target = tmp_path_factory.mktemp("installed")
    installed_into(target)
    return target
