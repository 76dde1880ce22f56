"""A recipe as the JSON that is saved beside what came of it: every field, nested configurations included."""

import dataclasses
import json
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def recipe_json(recipe: "DataclassInstance") -> str:
    """Fields as they are declared. Raises TypeError for a value that is neither JSON nor a configuration."""
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return json.dumps(fields, indent=2, default=_plain) + "\n"


def _plain(value: object) -> object:
    """What json cannot write by itself."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"a recipe cannot hold a {type(value).__name__}")
