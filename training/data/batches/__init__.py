"""Collate samples into packed batches."""
