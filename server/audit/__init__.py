"""Record who asked what of the service when, without content, in a chain of hashes."""
