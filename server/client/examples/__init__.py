"""Short example programs that use the client."""
