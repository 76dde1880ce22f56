"""Run one stage of gradient descent."""
