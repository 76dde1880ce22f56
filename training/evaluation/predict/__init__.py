"""Predict answers in process or through a running service."""
