"""Django in one file: `locate` finds objects in Django's database.

S3_IMAGE_BUCKET=photos PICTURES_DB=pictures.sqlite3 uvicorn django_host:app

Django has no mounts for ASGI applications and no lifespan. Starlette, which downspout depends on,
stands before it and has both. A Django view can't return the Starlette response of
`stream_object`; a Starlette route can.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from downspout import Settings, create_app, stream_object

django_settings.configure(
    ALLOWED_HOSTS=[os.environ.get("ALLOWED_HOST", "localhost")],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("PICTURES_DB", "file:pictures?mode=memory&cache=shared"),
        }
    },
)
django = get_asgi_application()

with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS pictures (id INTEGER PRIMARY KEY, key TEXT)")
    cursor.execute("INSERT OR IGNORE INTO pictures VALUES (1, 'test/1/image.jpg')")
    cursor.execute("INSERT OR IGNORE INTO pictures VALUES (2, 'test/2/image.jpg')")


def locate(task_id: int) -> str | None:
    """Return the key of a picture; downspout calls a plain function in a thread."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT key FROM pictures WHERE id = %s", [task_id])
            row = cursor.fetchone()
            return row and str(row[0])
    finally:
        connection.close()  # Django closes it only after its own requests.


media = create_app(Settings.from_environ(), locate=locate)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Open and close downspout's clients with the process."""
    async with media.router.lifespan_context(media):
        yield


def hello(_: HttpRequest) -> HttpResponse:
    """Answer a route of the host's own."""
    return HttpResponse("hello", content_type="text/plain")


async def report(request: Request) -> Response:
    """Answer with the object at a key that the host chooses."""
    return stream_object(media, f"reports/{request.path_params['number']}.pdf")


urlpatterns = [path("hello", hello)]
routes = [
    Route("/reports/{number:int}", report),
    Mount("/media", media, name="media"),
    Mount("/", django),
]
app = Starlette(routes=routes, lifespan=lifespan)
