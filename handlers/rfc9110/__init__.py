"""HTTP semantics (RFC 9110) as pure functions."""
