"""Implement MoE and LoRA layers on vLLM's kernels."""
