"""Faults on purpose, and what the service and a naive one make of each."""
