"""Metrics, log lines, request ids and traces of downloads."""
