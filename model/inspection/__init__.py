"""Inspect a checkpoint directory and verify its weights against its config."""
