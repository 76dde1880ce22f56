"""Turn validated requests into engine calls and the results into responses."""
