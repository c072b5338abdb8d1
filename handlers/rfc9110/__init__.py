"""HTTP semantics (RFC 9110) as pure functions: conditions, dates, digests and ranges."""
