"""Ask about the same labels in varied words."""
