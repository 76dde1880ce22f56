"""Read a recipe from a JSON file, such as the recipe.json that every run writes."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medmoe.model.errors import ConfigError
from medmoe.training.config import RunConfig
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig


def read_recipe_file(path: Path) -> AnyRunConfig:
    """Return the recipe in `path`. Raises ConfigError naming the first field that is unknown, missing or wrong."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if isinstance(document, dict) and isinstance(document.get("recipe"), dict):
        # The run's start has a place beside its recipe.
        document = document["recipe"]
    kind: Any = LoRARunConfig if isinstance(document, dict) and "stage" in document else RunConfig
    try:
        config: AnyRunConfig = TypeAdapter(kind).validate_json(json.dumps(document))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, found["loc"])) or "the whole"
        raise ConfigError(f"{path}: {where}: {found['msg'].removeprefix('Value error, ')}") from error
    if unknown := sorted(_names(document) - _names(json.loads(config.to_json()))):
        raise ConfigError(f"{path}: no recipe has the field {unknown[0]}")
    return config


def _names(document: Any, above: str = "") -> set[str]:
    """Return the paths of all fields, with dots between the names."""
    if isinstance(document, dict):
        inner = [(f"{above}.{name}".removeprefix("."), value) for name, value in document.items()]
        return {name for name, _ in inner}.union(*(_names(value, name) for name, value in inner))
    if isinstance(document, list):
        return set().union(*(_names(value, f"{above}.{number}") for number, value in enumerate(document)))
    return set()
