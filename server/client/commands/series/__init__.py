"""`medmoe series`: ask a service about the slices of a series."""
