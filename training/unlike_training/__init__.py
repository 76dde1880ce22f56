"""Fit and measure a checkpoint's reference of its training images."""
