"""Training Med-MoE-LoRA: soft-gated adapters on a frozen dense base."""
