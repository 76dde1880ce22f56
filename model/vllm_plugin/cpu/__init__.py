"""Implement faster CPU kernels for the vision tower, norms and experts."""
