"""Say which parts of an image an answer depends on."""
