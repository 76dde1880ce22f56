"""Read images of a user's own: label folders and tables."""
