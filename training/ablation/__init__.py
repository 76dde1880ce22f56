"""Compare methods: recipes trained from one dense checkpoint, on one budget, over several seeds."""
