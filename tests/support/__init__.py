"""What the tests are made of: a real server, real components, and one that misbehaves."""
