"""Describe the routes for OpenAPI: requests, recorded answers, refusals, settings."""
