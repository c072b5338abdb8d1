"""HTTP semantics: pure functions."""
