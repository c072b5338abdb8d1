"""Faults of stores, clients and processes, and what the service makes of each."""
