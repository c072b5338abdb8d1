"""nginx's configurations: the origin, and the proxies that are peers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .certificate import Certificate

if TYPE_CHECKING:
    from .peer import Place

_ORIGIN = """
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        root {objects};
        {keep_alive}
    }}
"""

_PROXY = """
    upstream store {{
        server 127.0.0.1:{origin};
        keepalive 512;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/tasks/([0-9]+)/image$ {{
            proxy_pass {scheme}://store/photos/test/$1/image.jpg;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            {buffers}
            {tls}
        }}
    }}
"""

TUNED = "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_max_temp_file_size 0;"


# nginx compares only names, no addresses, with those of a certificate.
_TLS = "proxy_ssl_verify on; proxy_ssl_name origin; proxy_ssl_trusted_certificate {};"


def origin(
    directory: Path,
    port: int,
    objects: Path,
    certificate: Certificate | None = None,
    *,
    keeps_connections: bool = True,
) -> list[str]:
    """Return the command that serves the files in `objects`, over TLS with a certificate."""
    tls = ""
    if certificate is not None:
        tls = f" ssl; ssl_certificate {certificate.file}; ssl_certificate_key {certificate.key}"
    keep_alive = "" if keeps_connections else "keepalive_timeout 0;"
    server = _ORIGIN.format(port=port, objects=objects, tls=tls, keep_alive=keep_alive)
    return _command(directory, 1, server)


def proxy(place: Place, buffers: str) -> list[str]:
    """Return the command that passes requests on to the origin, and signs nothing."""
    servers = _PROXY.format(
        port=place.port,
        origin=place.origin_port,
        buffers=buffers,
        scheme=place.scheme,
        tls=_TLS.format(place.certificate.file) if place.certificate else "",
    )
    return _command(place.directory, place.workers, servers)


def version() -> str:
    """Return nginx's version."""
    said = subprocess.run(["nginx", "-v"], check=True, capture_output=True, text=True).stderr
    return said.strip().rpartition("/")[2]


def _command(directory: Path, workers: int, servers: str) -> list[str]:
    directory.mkdir()
    temporary = "\n".join(
        f"    {name}_temp_path {directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root its workers would be nobody's, who may not read the files.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = f"""
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
worker_processes {workers};
worker_rlimit_nofile 16384;
{user}
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type image/jpeg;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
{temporary}
{servers}
}}
"""
    file = directory / "nginx.conf"
    file.write_text(configuration)
    return ["nginx", "-p", str(directory), "-c", str(file)]
