"""Tests of the service in this process, over real sockets."""
