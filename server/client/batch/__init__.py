"""Answer many questions from a folder or a file, resumable after an interruption."""
