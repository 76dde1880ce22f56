"""Fit and evaluate calibration maps."""
