"""Read samples from files, and make batches of them."""
