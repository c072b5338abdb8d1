"""The landing page (``/``): curl commands as plain text, or a page for browsers."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from .runtime import get_runtime
from .settings import AuthMode


async def landing(request: Request) -> Response:
    """Answer with the page if the client accepts HTML, else with plain text."""
    # If a host mounts this application, request.base_url is the root of the host instead.
    url = str(request.url.replace(query=""))
    auth_mode = get_runtime(request.app).settings.auth_mode
    commands = curl_lines(url, auth_mode, request.scope["root_path"])
    headers = {"vary": "accept", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if "text/html" in request.headers.get("accept", ""):
        page, policy = _read_page()
        items = "".join(f"<li><code>{escape(line)}</code></li>\n" for line in commands)
        headers |= {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        return HTMLResponse(page.replace("<!-- commands -->\n", items), headers=headers)
    lines = ["downspout: streamed downloads from S3 and other HTTP services.", "", *commands]
    return PlainTextResponse("\n".join(lines) + "\n", headers=headers)


def curl_lines(base_url: str, auth_mode: AuthMode = "open", root_path: str = "") -> list[str]:
    """Return three curl commands for the service at `base_url`, which ends in a slash.

    In auth mode "token" the commands send the shell variable TOKEN; in auth mode "signature" they
    sign the URL with a key in the environment variable URL_SIGNING_KEYS.
    """
    token = '-H "Authorization: Bearer $TOKEN" ' if auth_mode == "token" else ""
    root = f" --root-path {root_path}" if root_path else ""

    def argument(path: str) -> str:
        url = f"{base_url}{path}"
        return f'"$(downspout sign {url}{root})"' if auth_mode == "signature" else url

    return [
        f"curl -fS {token}-o image.jpg {argument('tasks/1/image')}",
        f"curl -fS {token}-o bytes.bin {argument('tasks/1/bytes/100000')}",
        f"curl -fsS {token}-I {argument('tasks/1/image')}",
    ]


@cache
def _read_page() -> tuple[str, str]:
    """Return the page, and a Content-Security-Policy for its own style and script only."""
    page = Path(__file__).with_name("landing.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; img-src blob: 'self'; connect-src 'self'; "
        f"style-src {_hash_source('style', page)}; script-src {_hash_source('script', page)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash_source(tag: str, page: str) -> str:
    """Return the hash-source (CSP) of the text of the page's one element with this tag."""
    [text] = re.findall(f"<{tag}\\b[^>]*>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
