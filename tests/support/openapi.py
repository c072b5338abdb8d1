"""Reads the OpenAPI document: its references, and the errors that an operation names."""

from __future__ import annotations

import re
from typing import Any

IMAGE, BYTES = "/tasks/{task_id}/image", "/tasks/{task_id}/bytes/{size}"
OBJECTS = "/objects/{key}"

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "objects": {"s3_objects": ("public/",)},
    "redirect": {"delivery": "redirect"},
    "both": {"s3_objects": ("public/",), "delivery": "redirect"},
    "guarded": {
        "s3_objects": ("photos=photos/public/", "docs=others/"),
        "access_tokens": ("first-token-of-two",),
        "url_signing_keys": ("new:0123456789abcdef",),
    },
}
"""Settings that change which paths, responses and credentials the document lists."""


def resolve(node: Any, document: dict[str, Any]) -> Any:
    """Return a node of the document with every $ref replaced by its component."""
    if isinstance(node, list):
        return [resolve(item, document) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        _, components, section, name = node["$ref"].split("/")
        return resolve(document[components][section][name], document)
    return {name: resolve(item, document) for name, item in node.items()}


def statuses(operation: dict[str, Any]) -> set[int]:
    """Return the statuses of an operation's responses."""
    return {int(status) for status in operation["responses"]}


def error_kinds(operation: dict[str, Any]) -> set[tuple[int, str]]:
    """Return each status and kind that the descriptions of an operation's responses name."""
    return {
        (int(status), kind)
        for status, response in operation["responses"].items()
        for kind in re.findall(r"`([a-z-]+)`: ", response["description"])
    }
