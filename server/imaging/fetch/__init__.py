"""Fetch images by URL from public addresses only."""
