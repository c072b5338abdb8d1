"""Authorization of downloads: tokens, signed URLs and the host's hooks."""
