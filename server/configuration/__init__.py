"""Read and check the deployment settings."""
