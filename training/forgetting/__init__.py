"""Measure what a dense checkpoint forgets of its old tasks when it learns new ones, method by method."""
