"""How /docs describes what the routes accept and refuse.

Apart from the routes because they read their bodies themselves (two content types, one validation), so the framework
cannot derive this; it is derived here from the same wire types.
"""

from typing import Any

from pydantic import BaseModel

from medmoe.server.schemas import ErrorResponse

BLACK_SQUARE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFUlEQVR42mNgGAWjYBSMglEwCqgBAAMQAAFQKzYVAAAAAElFTkSuQmCC"
)

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "The body or the image string cannot be parsed, or the image URL is not allowed",
        401: "No API key, or an unknown one, where the deployment has keys",
        413: "The body or the picture is too large",
        415: "Neither JSON nor multipart, or not an accepted picture format",
        422: "A field or the picture cannot be used or fetched, or the engine has died of this request twice",
        429: "The service is full, or this key has asked too often; see Retry-After",
        500: "The service failed",
        503: "Still loading, shutting down, or the engine has stopped; see Retry-After where there is one",
        504: "Not finished in time",
    }.items()
}

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream: true` as server-sent events, of which a failure on the way is one",
        # Without a schema: OpenAPI 3.1 has none for a stream of events, and readers take one as that of each event.
        "content": {"text/event-stream": {}},
    }
}
UNKNOWN_MODEL: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorResponse, "description": "Not the model that is served"}
}


def accepts_json(kind: type[BaseModel], *, example: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI `requestBody` of a route that takes JSON alone."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """`schema` with what it refers to in its place: inside a larger document such references lead nowhere."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        named = definitions[schema["$ref"].rpartition("/")[2]]
        return _inlined(named | {key: value for key, value in schema.items() if key != "$ref"}, definitions)
    # The discriminator refers too; each alternative's `type` says the same.
    return {key: _inlined(value, definitions) for key, value in schema.items() if key != "discriminator"}


def accepts(as_json: type[BaseModel], fields: type[BaseModel], *, example: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI `requestBody` for both content types; `example` holds everything but the picture."""
    form = fields.model_json_schema()
    form["properties"] = {"image": {"type": "string", "format": "binary"}, **form["properties"]}
    form["required"] = ["image", *form.get("required", ())]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": as_json.model_json_schema(),
                    "example": {"image": BLACK_SQUARE, **example},
                },
                "multipart/form-data": {"schema": form},
            },
        }
    }
