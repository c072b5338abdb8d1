"""Responses: which bytes a request gets, of which version, with which status and headers."""
