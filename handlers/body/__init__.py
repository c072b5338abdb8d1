"""Bodies of downloads: read from an upstream, retried, resumed, read ahead and verified."""
