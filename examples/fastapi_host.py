"""FastAPI: only logged-in users may download, and handlers answer with objects.

S3_IMAGE_BUCKET=photos uvicorn fastapi_host:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from downspout import Settings, create_app, stream_object, stream_url

LOGO_URL = os.environ.get("LOGO_URL", "http://httpbin.org/image/jpeg")

# In place of your session store.
SESSIONS = {"session-of-ada": "ada"}


async def user_of(request: Request) -> str:
    """Return the user of a request; an ordinary dependency."""
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        raise HTTPException(401, "Log in first.")
    return user


async def authorize(request: Request) -> bool:
    """Return whether a request may download; an HTTPException of user_of is the answer."""
    return bool(await user_of(request))


media = create_app(Settings.from_environ(), authorize=authorize)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open and close downspout's clients with the host's own."""
    async with media.router.lifespan_context(media):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/media", media, name="media")


@app.get("/hello")
async def hello() -> str:
    """Answer a route of the host's own."""
    return "hello"


@app.api_route("/reports/{number}", methods=["GET", "HEAD"])
async def report(number: int, user: Annotated[str, Depends(user_of)]) -> StreamingResponse:
    """Answer with an object that belongs to the user."""
    return stream_object(media, f"reports/{user}/{number}.pdf")


@app.get("/logo")
async def logo() -> StreamingResponse:
    """Answer with the body of another HTTP service."""
    return stream_url(media, LOGO_URL)
