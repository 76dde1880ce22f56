"""Routes that show an image: rendered, or with where an answer comes from."""
