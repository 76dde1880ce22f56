"""Define the part of OpenAI's API that this service offers."""
