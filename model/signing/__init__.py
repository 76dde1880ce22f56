"""Sign checkpoint directories and verify them before anything in them is parsed. Torch-free."""
