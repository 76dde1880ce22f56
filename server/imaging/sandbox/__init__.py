"""Run image decoders in child processes with limits."""
