"""Turn the bytes that a client sent into RGB images, in decoder processes with limits."""
