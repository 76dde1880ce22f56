"""Read PNG files."""
