"""The models of one service: each is a checkpoint with an engine and everything that belongs to its answers."""
