"""Speed up vision tower, norms and experts on a CPU; compute attention over a tree of tokens."""
