"""Provide short example programs that use the client."""
