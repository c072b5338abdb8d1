"""nginx as a server of static files, to compare the service with it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .client import fetch
from .serving import wait_until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")

CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
    access_log off; etag on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    large_client_header_buffers 8 64k;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        {lines}
    }}
}}
"""


@contextmanager
def nginx_serving(folder: Path, *lines: str) -> Generator[int]:
    """Run nginx with the files of a folder, and `lines` in its server block; yield its port."""
    if NGINX is None:
        assert "CI" not in os.environ, "scripts/test installs nginx there"
        pytest.skip("nginx is not installed")
    folder.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    text = CONFIGURATION.format(folder=folder, port=port, lines="\n".join(lines))
    (folder / "nginx.conf").write_text(text)
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]

    def answers() -> bool:
        try:
            fetch(port, "/")
        except ConnectionError:
            return False
        return True

    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            wait_until(answers)
            yield port
        finally:
            process.terminate()
