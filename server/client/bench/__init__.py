"""Load on a running service, and what became of each request."""
