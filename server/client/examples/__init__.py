"""Programs of a page or two that use the client, to be read, run and changed."""
