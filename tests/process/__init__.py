"""Tests of the service as a process, and of the installed package."""
