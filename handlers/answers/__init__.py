"""From a request to a response."""
