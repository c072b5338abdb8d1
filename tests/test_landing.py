"""The landing page."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from handlers import create_app

from .support.client import fetch
from .support.components import Store, settings_for
from .support.serving import RunningService, serving_app

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_curl_gets_commands_that_work(
    store: Store, service: RunningService, tmp_path: Path
) -> None:
    """Each line that curl is told to run succeeds as it stands."""
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    answer = service.get("/")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    commands = [line for line in answer.text.splitlines() if line.startswith("curl ")]
    assert len(commands) == 3
    for command in commands:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "image.jpg").read_bytes() == b"picture"
    assert (tmp_path / "bytes.bin").stat().st_size == 100_000


def test_browser_gets_a_page(troubled: RunningService) -> None:
    """Who asks for HTML gets a page that refers to nothing outside."""
    answer = troubled.get("/", headers=BROWSER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "accept"
    assert '<img src="tasks/1/image"' in answer.text
    assert answer.text.count("http") == answer.text.count(troubled.url)


def test_page_does_not_run_what_a_host_header_says(troubled: RunningService) -> None:
    """A Host that is markup is none in the page."""
    headers = {**BROWSER, "host": "a<script>alert(1)</script>"}
    assert "<script>" not in troubled.get("/", headers=headers).text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_page_of_a_mounted_application_has_its_prefix(store: Store, method: str) -> None:
    """Under a prefix, the commands have that prefix."""
    host = Starlette(routes=[Mount("/media", create_app(settings_for(store.url)))])
    with serving_app(host) as port:
        received = fetch(port, "/media/", method=method)
        assert received.status == 200
        expected = b"" if method == "HEAD" else b"http://downspout.test/media/tasks/1/image"
        assert expected in received.body
