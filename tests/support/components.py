"""The real components: moto's S3 server and httpbin, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config

from settings import Settings

from .serving import ROOT, UNMEASURED

BUCKET = "photos"


@contextmanager
def component(script: str, *arguments: str) -> Generator[int]:
    """Run a program of scripts/demo, which prints its port; yield the port."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "demo" / script), *arguments],
        env={**os.environ, **UNMEASURED},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0, f"{script} does not end when its standard input is closed"


@dataclass
class Store:
    """moto's S3 server with a bucket, and the settings that make the service use it."""

    port: int
    environ: dict[str, str] = field(init=False)
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = store_settings(self.url)
        self.environ = store_environ(self.url)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def put(self, key: str, body: bytes, **how: Any) -> None:
        """Store an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body, **how)


def store_settings(url: str) -> dict[str, Any]:
    """Return the arguments of `Settings` for a store at `url`."""
    return {
        "s3_image_bucket": BUCKET,
        "s3_endpoint_url": url,
        "s3_region": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }


def store_environ(url: str) -> dict[str, str]:
    """Return the environment of `python service.py` for a store at `url`."""
    return {
        "S3_IMAGE_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def settings_for(url: str, **changes: Any) -> Settings:
    """Return settings whose store and upstream are both the server at `url`."""
    return Settings(
        **{**store_settings(url), "bytes_url": url + "/bytes/{task_id}/{size}", **changes}
    )
