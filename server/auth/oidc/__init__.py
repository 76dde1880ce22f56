"""Verify tokens of an OpenID Connect provider."""
