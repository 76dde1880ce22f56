"""Generate tokens: an engine protocol (base), vLLM behind it, and a deterministic fake."""
