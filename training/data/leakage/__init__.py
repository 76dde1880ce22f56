"""Find images that are shared between splits."""
