"""The model room: one checkpoint directory, and the code that reads it in training and in serving."""
