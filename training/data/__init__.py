"""Samples from files, and batches from samples."""
