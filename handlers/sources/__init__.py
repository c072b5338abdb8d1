"""Sources of bytes: S3 buckets and other HTTP services."""
