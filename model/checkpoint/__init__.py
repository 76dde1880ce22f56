"""A checkpoint directory on disk: config.json, model.safetensors, tokenizer files, README.md."""
