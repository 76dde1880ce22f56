"""Define the sub-commands of `medmoe` that work on checkpoints."""
