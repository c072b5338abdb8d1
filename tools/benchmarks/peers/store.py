"""The store that all of them fetch from."""

from __future__ import annotations

import os

BUCKET = "photos"
ENDPOINT = os.environ["AWS_ENDPOINT_URL_S3"]


def key_of(task_id: object) -> str:
    """Return the key of a task's image."""
    return f"test/{task_id}/image.jpg"
