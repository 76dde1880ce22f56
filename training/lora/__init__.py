"""Train Med-MoE-LoRA."""
