"""Train the router as a classifier of imaging modality."""
