"""The landing page (``/``): commands to copy for curl, a small page for browsers."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from .answers.path import ExactRoute
from .runtime import get_runtime

AuthMode: TypeAlias = Literal["open", "token", "signature"]

# Where the commands stand in landing.html.
_COMMANDS = "<!-- commands -->\n"


async def landing(request: Request) -> Response:
    """Answer a page to who asks for HTML, else plain text."""
    # Not base_url: of a mounted application, that is its host's.
    here = str(request.url.replace(query=""))
    commands = curl_lines(
        here, get_runtime(request.app).settings.auth_mode, request.scope["root_path"]
    )
    headers = {"vary": "accept", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if "text/html" in request.headers.get("accept", ""):
        page, policy = _page()
        items = "".join(f"<li><code>{escape(line)}</code></li>\n" for line in commands)
        headers |= {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        return HTMLResponse(page.replace(_COMMANDS, items), headers=headers)
    told = ["downspout: streamed downloads, out of S3 and other HTTP services.", "", *commands]
    return PlainTextResponse("\n".join(told) + "\n", headers=headers)


def curl_lines(base_url: str, auth_mode: AuthMode = "open", root_path: str = "") -> list[str]:
    """Return three commands that show the service at `base_url`, which ends in a slash.

    They send the token that the shell's variable TOKEN holds, or sign with the shell's
    URL_SIGNING_KEYS, where that is the way in.
    """
    token = '-H "Authorization: Bearer $TOKEN" ' if auth_mode == "token" else ""
    root = f" --root-path {root_path}" if root_path else ""

    def at(path: str) -> str:
        url = f"{base_url}{path}"
        return f'"$(python service.py sign {url}{root})"' if auth_mode == "signature" else url

    return [
        f"curl -fS {token}-o image.jpg {at('tasks/1/image')}",
        f"curl -fS {token}-o bytes.bin {at('tasks/1/bytes/100000')}",
        f"curl -fsS {token}-I {at('tasks/1/image')}",
    ]


@cache
def _page() -> tuple[str, str]:
    """Return the page, and the policy that lets it run its own style and script, and no other."""
    page = Path(__file__).with_name("landing.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; img-src blob: 'self'; connect-src 'self'; "
        f"style-src {_hash_of('style', page)}; script-src {_hash_of('script', page)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash_of(tag: str, page: str) -> str:
    """Return how a policy names the text of the one element that has this tag."""
    [text] = re.findall(f"<{tag}\\b[^>]*>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


routes = [ExactRoute("/", landing)]
