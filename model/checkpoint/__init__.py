"""Read and write a checkpoint directory: config.json, model.safetensors, tokenizer files, README.md."""
