"""The examples, each in a process of its own: hosts, servers, and what has to hold there."""
