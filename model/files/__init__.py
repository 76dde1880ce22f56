"""Read and write a checkpoint's small files. Torch-free."""
