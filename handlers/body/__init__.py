"""Bytes on their way to the client."""
