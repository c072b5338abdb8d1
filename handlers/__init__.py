"""downspout's ASGI application: streamed downloads out of S3 and other HTTP services.

The map, top to bottom; each line may import from those below it and from nothing above:

    app                        create_app: lifespan, routes, error handlers, middleware
    _streamed                  stream_object, stream_url: downloads in a host's own handlers
    image, bytes, health,      one file for each area of the URL space: parse, open, answer
    metrics, openapi,
    landing
    _tracing                   spans for OpenTelemetry
    _object_answer,            the answers with an object of a store, and with a body of
    _remote_answer             another HTTP service
    _problems                  errors as RFC 9457 problems
    _download                  one request on a download route: what it owns, when it is over
    _location                  where an object is, as a host says
    _access, _per_client       who may download, and how much at once
    _signed_url                addresses that are good for a while
    _selection                 which bytes of an S3 object answer a request
    _asked, _path              what a request asks for: ranges and conditions; numbers in paths
    _headers                   which stored headers go out, and how
    _clients                   the two clients, opened once for a lifespan
    _stores                    buckets, each opened once
    _s3, _http                 the two sources; with those below alone in knowing aiohttp
    _s3_direct                 an ordinary bucket, its requests signed and sent by ourselves
    _s3_full                   any bucket, through aiobotocore; alone in knowing botocore
    _wire                      requests on aiohttp's connections, past its parser and its copies
    _s3_answer, _sigv4         a store's answers and errors; Signature Version 4
    _readiness                 whether the store answers, asked at most once in a moment
    _metrics                   the figures of an application, for Prometheus
    _record                    what is told of a download at its end
    _admission, _request_id    the bound on downloads at once, and draining; the id of a request
    _pace                      whether a client takes its bytes
    _read_ahead                several connections for a body that one to the store limits
    _healing                   continuing a body whose upstream broke
    _multipart                 several parts of an object in one body
    _pilot                     how many connections to the store a body is worth
    _idle                      idle connections of a pool, when one was dead
    _patience                  trying again what failed before an answer has begun
    _upstream                  an opened upstream answer, and its body to the byte
    _checksums                 checksums that S3 has of whole objects
    _ranges, _conditions       RFC 9110's ranges and conditional requests: pure functions
    _called                    functions of a host's, plain or async
    _errors                    everything that can go wrong, drawn as a tree

A module without an underscore has routes. Imports inside the package are relative and
`settings` is never imported at run time, so that the package can be renamed: it is installed
under the name `downspout`.
"""

from ._clients import chain_problem
from ._download import CONNECTION
from ._errors import BrokenTransfer, CannotStart
from ._signed_url import sign_url
from ._streamed import stream_object, stream_url
from .app import create_app, drain
from .landing import curl_lines

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
