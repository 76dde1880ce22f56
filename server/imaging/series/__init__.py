"""Arrange the slices of a series as a volume."""
