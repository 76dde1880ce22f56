"""Read and write a checkpoint directory: config.json, model.safetensors or its shards, tokenizer files, README.md."""
