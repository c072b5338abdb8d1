"""Check the landing page in a real browser: ``scripts/look``."""
