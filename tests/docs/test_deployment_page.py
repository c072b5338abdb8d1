"""docs/deployment.md has an anchor for each platform, and valid router configurations."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.markdown import Page
from tests.support.nginx import NGINX
from tests.support.serving import ROOT

PAGE = Page(ROOT / "docs" / "deployment.md")
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/bin")
PLATFORMS = {"heroku", "render", "railway", "fly", "dokku", "docker", "kubernetes"}
ROUTERS = {"haproxy-in-front", "nginx-in-front", "a-cdn-in-front"}

AROUND_NGINX = """
events {{}}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
http {{
    access_log off;
    {text}
}}
"""


def test_page_has_an_anchor_for_each_platform_and_router() -> None:
    """Each platform and each router has an anchor, which other pages and issues can link to."""
    assert PAGE.anchors >= PLATFORMS | ROUTERS


def is_nginx_configuration(text: str, folder: Path) -> bool:
    """Return whether nginx accepts `text` in its http block."""
    (folder / "nginx.conf").write_text(AROUND_NGINX.format(folder=folder, text=text))
    command = [str(NGINX), "-t", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_accepts_its_configuration(unused_port: int, tmp_path: Path) -> None:
    """The block in the page is valid for nginx, and not one with an unknown directive."""
    [block] = PAGE.blocks("nginx")
    # `nginx -t` opens the socket.
    block = block.replace("listen 80;", f"listen 127.0.0.1:{unused_port};")
    assert is_nginx_configuration(block, tmp_path)
    assert not is_nginx_configuration(block.replace("proxy_pass ", "proxy_to "), tmp_path)


def is_haproxy_configuration(text: str, folder: Path) -> bool:
    """Return whether HAProxy accepts `text`."""
    (folder / "haproxy.cfg").write_text(text)
    command = [str(HAPROXY), "-c", "-f", str(folder / "haproxy.cfg")]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
def test_haproxy_accepts_its_configuration(tmp_path: Path) -> None:
    """HAProxy accepts the block in the page, and no block with an unknown keyword."""
    [block] = PAGE.blocks("haproxy")
    assert is_haproxy_configuration(block, tmp_path)
    assert not is_haproxy_configuration(block.replace("balance ", "balanced "), tmp_path)
