"""Write the model card of a trained checkpoint."""
