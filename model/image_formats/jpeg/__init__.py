"""Read JPEG files."""
