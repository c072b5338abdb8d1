"""Litestar: `locate` finds objects in SQLite, and a handler answers with one.

S3_IMAGE_BUCKET=photos PICTURES_DB=pictures.sqlite3 uvicorn litestar_host:app
"""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, MediaType, asgi, get
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from downspout import Settings, create_app, stream_object

database = sqlite3.connect(os.environ.get("PICTURES_DB", ":memory:"), check_same_thread=False)
database.executescript(
    "CREATE TABLE IF NOT EXISTS pictures (id INTEGER PRIMARY KEY, key TEXT NOT NULL);"
    "INSERT OR IGNORE INTO pictures VALUES (1, 'test/1/image.jpg'), (2, 'test/2/image.jpg');"
)


def locate(task_id: int) -> str | None:
    """Return the key of a picture; downspout calls a plain function in a thread."""
    row = database.execute("SELECT key FROM pictures WHERE id = ?", (task_id,)).fetchone()
    return row and str(row[0])


downloads = create_app(Settings.from_environ(), locate=locate)


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncIterator[None]:
    """Open and close downspout's clients with the host's own."""
    async with downloads.router.lifespan_context(downloads):
        yield


@asgi("/media", is_mount=True, copy_scope=True)
async def media(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on the requests below /media.

    Litestar removes the prefix from `path` and adds a slash at its end. ASGI demands the whole
    path, and the prefix in `root_path`.
    """
    root_path = scope["root_path"] + "/media"
    path = root_path + (scope["path"].rstrip("/") or "/")
    await downloads({**scope, "root_path": root_path, "path": path}, receive, send)


@get("/reports/{number:int}")
async def report(number: int) -> StreamingResponse:
    """Answer with an object; Litestar takes Starlette's responses."""
    return stream_object(downloads, f"reports/{number}.pdf")


@get("/hello", media_type=MediaType.TEXT)
async def hello() -> str:
    """Answer a route of the host's own."""
    return "hello"


app = Litestar(route_handlers=[media, report, hello], lifespan=[lifespan])
