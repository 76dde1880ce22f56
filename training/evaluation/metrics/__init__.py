"""Compute metrics of predictions."""
