# What a host's type checker reads of the installed package, where `settings` is in it: handlers/
# itself can't import that, as a checkout has it elsewhere. mypy.stubtest keeps the two equal.
from collections.abc import Mapping
from typing import Final

import aiohttp
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from types_aiobotocore_s3 import S3Client

from .access.hooks import Authorize, Locate
from .errors import BrokenTransfer as BrokenTransfer
from .errors import CannotStart as CannotStart
from .landing import AuthMode
from .settings import Settings

__all__ = [
    "CONNECTION",
    "BrokenTransfer",
    "CannotStart",
    "chain_problem",
    "create_app",
    "curl_lines",
    "drain",
    "sign_url",
    "stream_object",
    "stream_url",
]

CONNECTION: Final = "downspout.connection"

def create_app(
    settings: Settings,
    *,
    s3: S3Client | None = None,
    http: aiohttp.ClientSession | None = None,
    authorize: Authorize | None = None,
    locate: Locate | None = None,
) -> Starlette: ...
async def drain(app: Starlette, grace: float | None = None) -> None: ...
def stream_object(
    downloads: Starlette, key: str, *, bucket: str | None = None, download_name: str | None = None
) -> StreamingResponse: ...
def stream_url(
    downloads: Starlette,
    url: str,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    download_name: str | None = None,
) -> StreamingResponse: ...
def sign_url(url: str, key: str, *, lifetime: float, root_path: str = "") -> str: ...
def curl_lines(base_url: str, auth_mode: AuthMode = "open", root_path: str = "") -> list[str]: ...
def chain_problem() -> str | None: ...
