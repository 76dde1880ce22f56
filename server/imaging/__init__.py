"""From the bytes that a client sent to the RGB picture that the model sees, in child processes with limits."""
