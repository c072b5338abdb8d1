"""Objects of an S3 bucket."""
