"""Define the routes of OpenAI's API."""
