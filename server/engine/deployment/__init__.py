"""Derive and check the engine configuration before vLLM is imported."""
