"""From an upstream checkpoint (DeepSpeed's names, a Hugging Face directory) to a checkpoint of this project."""
