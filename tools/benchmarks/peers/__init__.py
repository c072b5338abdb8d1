"""The peers that are Python: each an application as somebody would write it."""
