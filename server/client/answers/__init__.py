"""Define the models of the service's answers."""
