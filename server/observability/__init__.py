"""Record each request for metrics, logs and traces."""
