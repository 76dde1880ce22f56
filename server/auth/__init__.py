"""Authenticate callers by API key and limit their rate."""
