"""Count the tokens of each expert over time and compare them with a reference."""
