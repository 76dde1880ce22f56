"""Open upstream weight files and read tensors one at a time."""
