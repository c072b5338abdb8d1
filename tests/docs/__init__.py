"""Tests of documents and deployment files."""
