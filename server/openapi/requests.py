"""How /docs describes what the routes accept.

Apart from the routes because they read their bodies themselves (two content types, one validation), so the framework
cannot derive this; it is derived here from the same wire types.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

EXAMPLES = Path(__file__).parent / "examples"
"""A picture to ask about, and what the bundled checkpoint answers; python -m tests.openapi_examples makes them."""
PICTURE = "data:image/png;base64," + base64.b64encode((EXAMPLES / "phantom.png").read_bytes()).decode()
"""A chest CT that nobody has ever had."""

Named = Mapping[str, Mapping[str, Any]]
"""Bodies of requests by what they show."""


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI's `examples`; a name with underscores is its own summary."""
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in values.items()}


def accepts_json(kind: type[BaseModel], *, examples: Named) -> dict[str, Any]:
    """The OpenAPI `requestBody` of a route that takes JSON alone."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions), "examples": named(examples)}}
    return {"requestBody": {"required": True, "content": content}}


def accepts(as_json: type[BaseModel], fields: type[BaseModel], *, examples: Named) -> dict[str, Any]:
    """The OpenAPI `requestBody` for both content types; `examples` hold everything but the picture."""
    form = fields.model_json_schema()
    form["properties"] = {"image": {"type": "string", "format": "binary"}, **form["properties"]}
    form["required"] = ["image", *form.get("required", ())]
    # Pages that show this document fill in every field, so all first examples of a form must go together.
    fullest = max(examples.values(), key=len)
    form["properties"] |= {
        name: _in_a_form(schema, fullest.get(name)) for name, schema in form["properties"].items() if name != "image"
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": as_json.model_json_schema(),
                    "examples": named({name: {"image": PICTURE, **body} for name, body in examples.items()}),
                },
                "multipart/form-data": {
                    "schema": form,
                    # No text is a file: a reader of the document puts one in its place.
                    "examples": named({name: {"image": "@ct.png", **body} for name, body in examples.items()}),
                },
            },
        }
    }


def _in_a_form(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """A field without null, which no form can send, and with an example."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    (kind,) = kinds or [{}]
    found = {name: one for name, one in (schema | kind).items() if name != "anyOf" and (name, one) != ("default", None)}
    return found if value is None else found | {"examples": [value]}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """`schema` with what it refers to in its place: inside a larger document such references lead nowhere."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        return _inlined(found | {key: value for key, value in schema.items() if key != "$ref"}, definitions)
    # The discriminator refers too; each alternative's `type` says the same.
    return {key: _inlined(value, definitions) for key, value in schema.items() if key != "discriminator"}
