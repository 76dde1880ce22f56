"""Define the model architecture and read and write its checkpoints, for training and serving."""
