"""moto's S3 server as a process of its own, for the demo and the tests.

    python scripts/demo/store.py BUCKET [KEY=FILE ...]

Makes the bucket, stores each file under its key, prints the port it listens on as one line, and
ends when its standard input does: so it never outlives the process that started it. A file named
*.jpg is stored as image/jpeg, any other file without a type.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer


def main(bucket: str, objects: list[str]) -> None:
    """Serve until the standard input ends."""
    # werkzeug writes a line for each request; that is the store's noise, not the service's.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
    )
    client.create_bucket(Bucket=bucket)
    for pair in objects:
        key, _, path = pair.partition("=")
        body = Path(path).read_bytes()
        content_type = {"ContentType": "image/jpeg"} if path.endswith(".jpg") else {}
        client.put_object(Bucket=bucket, Key=key, Body=body, **content_type)
    with suppress(BrokenPipeError):  # Whoever started it may be gone by now.
        os.write(sys.stdout.fileno(), f"{port}\n".encode())
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
