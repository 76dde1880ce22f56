"""Escape untrusted text for a terminal. Torch-free.

Names inside a checkpoint are untrusted. Printed as they are, they could move the cursor, recolour, reorder or
overwrite what the program says, or fill the screen.
"""

MAX_VALUE = 200
"""Characters of one name or value."""
MAX_MESSAGE = 2000
"""Characters of one line."""
_SHOWN = 5


def terminal_safe(text: str, *, limit: int = MAX_VALUE) -> str:
    """Return `text` on one line, cut; what does not print (controls, bidi controls, lone surrogates) is escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown + (f"… ({len(text) - limit} characters more)" if len(text) > limit else "")


def listed(values: list[str], *, shown: int = _SHOWN) -> str:
    """Return the first few values, each of them terminal_safe, and how many more there are."""
    rest = len(values) - shown
    return ", ".join(map(terminal_safe, values[:shown])) + (f" and {rest} more" if rest > 0 else "")
