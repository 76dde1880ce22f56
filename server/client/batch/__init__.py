"""Many questions from a folder or a file, answered into a file that a killed run is continued with."""
