"""One stage of gradient descent: transformers' Trainer, and what it leaves open."""
