"""Read upstream tokenizers and build the vocabulary."""
