"""The directory of a run belongs to one recipe: what lies in it was made by the recipe beside it."""

from pathlib import Path

from medmoe.model.errors import ConfigError
from medmoe.training.atomic_file import write_atomically

RECIPE_FILE, REPORT_FILE = "recipe.json", "report.json"


def claim_directory(directory: Path, recipe: str, *, made_of: str = "recipe") -> None:
    """Create `directory` and write `recipe` into it; stages of two recipes must not mix.

    Raises ConfigError when it already holds a run of another; `made_of` says in the message what a recipe consists of.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RECIPE_FILE
    if path.exists() and path.read_text() != recipe:
        raise ConfigError(f"{directory} holds a run of another {made_of}; choose another --output")
    write_atomically(path, recipe)
