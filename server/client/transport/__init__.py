"""Send requests with retries and translate failures."""
