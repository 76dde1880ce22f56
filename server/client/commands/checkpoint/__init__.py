"""`medmoe checkpoint`: change the checkpoint of a running service."""
