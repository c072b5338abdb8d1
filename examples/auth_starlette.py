"""Starlette beside downspout: decides who may download what, for AUTH_URL.

uvicorn auth_starlette:app --port 9000
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# The paths that each session (in a cookie) or bearer token may download.
PATHS = {
    "session-of-ada": ("/tasks/1/", "/objects/videos/"),
    "token-of-grace": ("/tasks/", "/objects/"),
}


async def may_download(request: Request) -> Response:
    """Answer 204 if the request may download, 401 without credentials, else 403."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    paths = PATHS.get(token if scheme.lower() == "bearer" else request.cookies.get("session", ""))
    if paths is None:
        return Response(status_code=401, headers={"WWW-Authenticate": 'Bearer realm="photos"'})
    # Percent-encoded as the client sent it: compare it with what is allowed, not with what is not.
    is_allowed = request.headers["x-original-uri"].startswith(paths)
    return Response(status_code=204 if is_allowed else 403)


app = Starlette(routes=[Route("/may-download", may_download)])
