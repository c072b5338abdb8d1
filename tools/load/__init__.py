"""How the real service behaves under load, in figures: ``scripts/load``, no part of the gate."""
