"""Describe the request bodies of the routes in OpenAPI, from their models.

The framework cannot, because the routes read their bodies themselves: two content types, one validation.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

EXAMPLES = Path(__file__).parent / "examples"
"""An example image and recorded responses of the bundled checkpoint, made by python -m tests.openapi_examples."""
EXAMPLE_IMAGE = "data:image/png;base64," + base64.b64encode((EXAMPLES / "phantom.png").read_bytes()).decode()
"""A synthetic chest CT as a data URL."""
EXAMPLE_SERIES = "data:application/zip;base64," + base64.b64encode((EXAMPLES / "series.zip").read_bytes()).decode()
"""Four slices of a synthetic chest CT as a data URL."""

Named = Mapping[str, Mapping[str, Any]]
"""Example request bodies by name."""


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAPI's `examples`, with each name as its summary."""
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in values.items()}


def accepts_json(kind: type[BaseModel], *, examples: Named) -> dict[str, Any]:
    """Return the `requestBody` of a route that takes only JSON."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions), "examples": named(examples)}}
    return {"requestBody": {"required": True, "content": content}}


def accepts(
    as_json: type[BaseModel], fields: type[BaseModel], *, examples: Named, series: bool = False
) -> dict[str, Any]:
    """Return the `requestBody` of a route that takes JSON and forms; `examples` lack the image, or the `series`."""
    name, text, file = ("series", EXAMPLE_SERIES, "@ct.zip") if series else ("image", EXAMPLE_IMAGE, "@ct.png")
    binary: dict[str, Any] = {"type": "string", "format": "binary"}
    whole = as_json.model_json_schema()
    form = fields.model_json_schema()
    form["properties"] = {name: {"type": "array", "items": binary} if series else binary, **form["properties"]}
    form["required"] = [name, *form.get("required", ())]
    # An image that a form carries belongs to no source.
    form["properties"].pop("store", None)
    # Swagger UI fills in every field, so the first examples of a form's fields must form a valid request.
    fullest = max(examples.values(), key=len)
    form["properties"] |= {
        field: _in_a_form(schema, fullest.get(field)) for field, schema in form["properties"].items() if field != name
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _inlined(whole, whole.pop("$defs", {})),
                    "examples": named({title: {name: text, **body} for title, body in examples.items()}),
                },
                "multipart/form-data": {
                    "schema": form,
                    # Text cannot be a file; Swagger UI offers a file input in its place.
                    "examples": named(
                        {title: {name: [file] if series else file, **body} for title, body in examples.items()}
                    ),
                },
            },
        }
    }


def _in_a_form(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return the schema of a form field: without null, which no form can send, and with an example."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    (kind,) = kinds or [{}]
    found = {name: one for name, one in (schema | kind).items() if name != "anyOf" and (name, one) != ("default", None)}
    return found if value is None else found | {"examples": [value]}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return `schema` with its references replaced by their definitions, which the OpenAPI document lacks."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        return _inlined(found | {key: value for key, value in schema.items() if key != "$ref"}, definitions)
    # The discriminator has references too, and repeats each alternative's `type`.
    return {key: _inlined(value, definitions) for key, value in schema.items() if key != "discriminator"}
