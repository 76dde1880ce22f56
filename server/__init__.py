"""Serve a checkpoint over HTTP. Importing this package imports neither torch nor vLLM."""
