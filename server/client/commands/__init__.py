"""Define the sub-commands of `medmoe` that ask a running service. medmoe.model.cli imports them and reports errors."""
