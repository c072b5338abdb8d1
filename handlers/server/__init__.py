"""What uvicorn is taught for downloads; only service.py or a host imports it."""

from .drain import DrainOnSignal
from .protocol import Protocol

__all__ = ["DrainOnSignal", "Protocol"]
