"""Read dataset formats into samples."""
