"""The landing page in a real browser: ``python -m tools.browser``."""
