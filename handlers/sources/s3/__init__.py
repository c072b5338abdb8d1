"""The S3 source: objects of S3 buckets."""
