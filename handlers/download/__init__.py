"""One download, from its request to its end."""
