"""Measure a running service under load."""
