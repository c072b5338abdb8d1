"""The naive one with a client that is told to do as little as it can."""

from __future__ import annotations

from aiobotocore.config import AioConfig

from .naive import create_app

CONFIG = AioConfig(
    max_pool_connections=1024,
    parameter_validation=False,
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"mode": "standard"},
    s3={"addressing_style": "path"},
)

app = create_app(CONFIG, chunk_size=256 * 1024)
