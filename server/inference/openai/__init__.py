"""Read and write the formats of OpenAI's API."""
