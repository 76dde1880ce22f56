"""Finetune a checkpoint on images of one's own."""
