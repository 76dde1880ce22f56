"""Plan a run before it begins: which recipe, on which data, what is missing, and how long it takes."""
