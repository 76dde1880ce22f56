"""Replace small files whole or not at all, so that a run that is killed can be continued."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a sibling first, which then takes `path`'s place."""
    staging = path.with_name(f".{path.name}.new")
    staging.write_text(text)
    os.replace(staging, path)
