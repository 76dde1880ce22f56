"""Which images a checkpoint was really trained on: the manifest of its run, where a dataset's own word is not enough.

A dataset can say that a test image is in its train split; whether a run read that split, left such images out, or saw
the picture in another dataset, only the run knows.
"""

import json
from pathlib import Path

from medmoe.training.data.errors import DataError


def trained_images(manifest: Path) -> frozenset[str]:
    """SHA-256 of every image file in the train split of a run's manifest.json.

    Raises DataError when the file cannot be read or is no manifest.
    """
    try:
        found = json.loads(manifest.read_bytes())["splits"]["train"]["sha256"]
        if not isinstance(found, dict):
            raise TypeError
    except OSError as error:
        raise DataError(f"{manifest} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{manifest} is not the manifest of a training run") from error
    return frozenset(found)
