"""Decide whether a request may enter: readiness, slots, deadline."""
