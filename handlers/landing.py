"""The landing page (``/``): commands to copy for curl, a small page for browsers."""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from ._path import ExactRoute

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>downspout</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto;
         padding: 0 1rem; }}
  img {{ display: block; max-width: 100%; min-height: 3rem; margin: .8rem 0; border-radius: 6px; }}
  pre {{ overflow-x: auto; padding: .8rem 1rem; border-radius: 6px;
        background: color-mix(in srgb, currentColor 8%, transparent); }}
</style>
<h1>downspout</h1>
<p>Streamed downloads, out of S3 and other HTTP services.
<img src="tasks/1/image" alt="The image of task 1; if you see this text, it has none.">
<p>The same from a terminal:
<pre>{commands}</pre>
</html>
"""


async def landing(request: Request) -> Response:
    """Answer a page to who asks for HTML, else plain text."""
    # Not base_url: of a mounted application, that is its host's.
    here = str(request.url.replace(query=""))
    commands = "".join(f"{line}\n" for line in curl_lines(here))
    headers = {"vary": "accept", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_PAGE.format(commands=escape(commands)), headers=headers)
    text = f"downspout: streamed downloads, out of S3 and other HTTP services.\n\n{commands}"
    return PlainTextResponse(text, headers=headers)


def curl_lines(base_url: str, *, guarded: bool = False) -> list[str]:
    """Return three commands that show the service at `base_url`, which ends in a slash."""
    return [
        f"curl -fS -o image.jpg {base_url}tasks/1/image",
        f"curl -fS -o bytes.bin {base_url}tasks/1/bytes/100000",
        f"curl -fsS -I {base_url}tasks/1/image",
    ]


routes = [ExactRoute("/", landing, methods=["GET", "HEAD"])]
