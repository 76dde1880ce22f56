"""The server room: HTTP in front of one engine. Importing it imports neither torch nor vLLM."""
