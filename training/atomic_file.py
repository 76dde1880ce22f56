"""Small files that are replaced whole or not at all, so that a run killed at any moment can be continued."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a sibling first, which then takes `path`'s place."""
    staging = path.with_name(f".{path.name}.new")
    staging.write_text(text)
    os.replace(staging, path)
