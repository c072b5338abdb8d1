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
from .settings import Settings

# The application at AUTH_URL may check a cookie or any Authorization header.
CREDENTIALS = {"token": '-H "Authorization: Bearer $TOKEN" ', "application": '-H "$AUTH_HEADER" '}
NOTES = {
    "token": "Set TOKEN to an access token.",
    "signature": "Each command signs its URL with a key in URL_SIGNING_KEYS.",
    "application": "Set AUTH_HEADER to your login's header, such as Cookie: session=...",
}


async def landing(request: Request) -> Response:
    """Answer with the page if the client accepts HTML, else with plain text."""
    # If a host mounts this application, request.base_url is the root of the host instead.
    url = str(request.url.replace(query=""))
    settings = get_runtime(request.app).settings
    commands = curl_lines(url, settings, request.scope["root_path"])
    example = _example_key(settings)
    about_key = f"Replace {example} with the percent-encoded key of an object." if example else ""
    notes = " ".join(filter(None, [NOTES.get(settings.auth_mode), about_key]))
    headers = {"vary": "accept", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if "text/html" in request.headers.get("accept", ""):
        page, policy = _read_page()
        items = "".join(f"<li><code>{escape(line)}</code></li>\n" for line in commands)
        page = page.replace("<!-- commands -->\n", items).replace("<!-- notes -->", notes)
        page = page.replace("<main>", f'<main data-objects="{example}">')
        headers |= {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        return HTMLResponse(page, headers=headers)
    title = "downspout: streamed downloads from S3 and other HTTP services."
    lines = [title, "", *commands, *(["", notes] if notes else [])]
    return PlainTextResponse("\n".join(lines) + "\n", headers=headers)


def curl_lines(base_url: str, settings: Settings, root_path: str = "") -> list[str]:
    """Return curl commands, one per route, for the service at `base_url`, which ends in a slash.

    The commands send the shell variable TOKEN in auth mode "token", and AUTH_HEADER in auth mode
    "application". In auth mode "signature" they sign the URL with a key in the environment
    variable URL_SIGNING_KEYS.
    """
    credential = CREDENTIALS.get(settings.auth_mode, "")
    root = f" --root-path {root_path}" if root_path else ""
    follow = "L" if settings.delivery == "redirect" else ""

    def argument(path: str) -> str:
        url = f"{base_url}{path}"
        return f'"$(downspout sign {url}{root})"' if settings.auth_mode == "signature" else url

    lines = [
        f"curl -fS{follow} {credential}-o image.jpg {argument('tasks/1/image')}",
        f"curl -fS {credential}-o bytes.bin {argument('tasks/1/bytes/100000')}",
        f"curl -fsS {credential}-I {argument('tasks/1/image')}",
    ]
    if example := _example_key(settings):
        lines.append(f"curl -fS{follow} {credential}-O {argument(f'objects/{example}')}")
    return lines


def _example_key(settings: Settings) -> str:
    """Return a key for examples, or "" if there is no objects route; it is in the demo's store."""
    key = "document.pdf" if "" in settings.object_roots else "NAME/document.pdf"
    return key if settings.s3_objects else ""


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
