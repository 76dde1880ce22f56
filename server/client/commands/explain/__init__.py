"""`medmoe explain`."""
