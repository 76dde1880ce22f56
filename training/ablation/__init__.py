"""What each idea is worth: recipes trained from one dense checkpoint, on one budget, over several seeds."""
