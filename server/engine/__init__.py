"""What generates tokens: the seam (base), vLLM behind it, and a deterministic stand-in."""
