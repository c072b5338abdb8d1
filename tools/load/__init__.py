"""Measure the service under load: ``scripts/load``. The gate does not run it."""
