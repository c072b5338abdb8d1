"""An object under one of the roots in S3_OBJECTS, from S3 (``/objects/{key}``)."""

from starlette.requests import Request
from starlette.responses import Response

from .answers.headers import type_for_key
from .answers.path import parse_object_path
from .answers.selectors import download_name, parse_selectors
from .answers.stored_object import answer_with_object
from .download.handle import get_download


async def get_object(request: Request) -> Response:
    """Stream an object, or the ranges that the request selects, or redirect to it."""
    download = get_download(request)
    roots = download.runtime.settings.object_roots
    path, raw_path = request.path_params["key"], request.scope.get("raw_path")
    bucket_name, key = parse_object_path(path, raw_path, roots)
    bucket = await download.in_time(download.serving.buckets.get(bucket_name))
    selectors = parse_selectors(request)
    filename = download_name(request)
    if filename == "":
        filename = key.rpartition("/")[2]
    return await answer_with_object(
        download, bucket, key, selectors, default_type=type_for_key(key), filename=filename
    )
