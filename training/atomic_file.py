"""Replace small files whole or not at all, so that a run that is killed can be continued."""

import os
from pathlib import Path


def staging_of(path: Path) -> Path:
    """Return the sibling that becomes `path`; a process that is killed may leave it."""
    return path.with_name(f".{path.name}.new")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a sibling first, which then takes `path`'s place."""
    staging = staging_of(path)
    staging.write_text(text)
    os.replace(staging, path)
