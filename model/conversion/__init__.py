"""Convert upstream checkpoints (DeepSpeed's names, a Hugging Face directory) to checkpoints of this project."""
