"""Train the papers' stages as recipes on transformers.Trainer, from public data to a checkpoint."""
