"""Who may download."""
