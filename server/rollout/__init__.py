"""Change the served checkpoint without a stop: load another beside it, compare both, switch, go back."""
