"""Interpret upstream configurations and tensor names."""
