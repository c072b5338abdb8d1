"""What is told about downloads."""
