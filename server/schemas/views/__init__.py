"""Requests and responses of the routes that show an image."""
