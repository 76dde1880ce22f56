"""Med-MoE-LoRA (arXiv 2601.07935): a frozen dense model, and per layer a mixture of low-rank experts added to it."""
