"""Define named runs. Each function returns a full, frozen configuration; to change a run, write a function."""
