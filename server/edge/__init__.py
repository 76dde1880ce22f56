"""Refuse requests on a connection before the web framework runs."""
