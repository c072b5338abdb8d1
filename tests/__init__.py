"""Tests: one file for each module or promise; each test says its rule in one sentence."""
