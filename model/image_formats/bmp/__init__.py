"""Read BMP files."""
