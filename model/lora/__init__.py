"""Define Med-MoE-LoRA (arXiv 2601.07935)."""
