"""Write SETTINGS.md: every setting as a table, made from settings.py.

python -m medmoe.server.openapi.settings_table > server/SETTINGS.md
"""

import re
import sys
from typing import Any

from medmoe.server.configuration.strict_environment import PREFIX, variable
from medmoe.server.settings import Settings

COMMAND = "python -m medmoe.server.openapi.settings_table > server/SETTINGS.md"

_HEAD = f"""# Settings

Environment variables of the service, and what each costs. All are read once, at the start; a file that
one names is read again where its row says so. An empty variable counts as unset. An unknown one that begins with
`{PREFIX}` is refused with its nearest name. `{PREFIX}API_KEY`, `{PREFIX}URL`, `{PREFIX}CA_FILE`,
`{PREFIX}CLIENT_CERTIFICATE`, `{PREFIX}CLIENT_KEY` and `{PREFIX}DEBUG` belong to the client and the command line and are
ignored here, and so are variables of `docker-compose.yml`, such as `{PREFIX}PUBLISHED_PORT`. This file is made from
[settings.py](settings.py) by `{COMMAND}`.

## Image caches

A question about an image that came before is looked up in three caches, in this order:

1. Decoded images, in the service: `MEDMOE_IMAGE_CACHE_ENTRIES` of them. Saves decoding and resizing.
2. Pixel tensors for vLLM, in the service: 32 of them, a constant (`_KEPT` in
   [vllm_engine.py](engine/vllm_engine.py)). Saves the conversion for the many requests of one classification.
3. Embeddings of the vision tower, in the engine: `MEDMOE_ENCODER_CACHE_MIB`. Saves the tower.

Beyond them the engine's key-value cache (`MEDMOE_KV_CACHE_GIB`) holds the attention of whole prompts, image included.

## Table

| variable | value | default | meaning |
| --- | --- | --- | --- |
"""
_TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "array": "list with commas",
}
_FORMATS = {"path": "path", "uri": "URL"}
_UNITS = {
    "_bytes": "bytes", "_ms": "milliseconds", "_seconds": "seconds", "_mib": "MiB", "_gib": "GiB", "_pixels": "pixels",
    "_chars": "characters",
}  # fmt: skip
_BUNDLED = "the bundled checkpoint"


def settings_table() -> str:
    """Return the document as Markdown."""
    return _HEAD + "".join(_row(name) for name in Settings.model_fields)


def _row(name: str) -> str:
    cells = (f"`{variable(name)}`", _value(name), _default(name), _meaning(name))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _value(name: str) -> str:
    schema = Settings.model_json_schema()["properties"][name]
    (kind,) = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    if "enum" in kind:
        return ", ".join(f"`{choice}`" for choice in kind["enum"])
    unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), None)
    noun = unit or _FORMATS.get(kind.get("format", ""), _TYPES[kind["type"]])
    return f"{noun}{_bounds(kind)}"


def _bounds(kind: dict[str, Any]) -> str:
    least, most, above = (kind.get(bound) for bound in ("minimum", "maximum", "exclusiveMinimum"))
    if above is not None:
        return f", above {_number(above)}" + ("" if most is None else f", at most {_number(most)}")
    if most is not None:
        return f", {_number(least)} to {_number(most)}"
    return "" if least is None else f", from {_number(least)}"


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        # A path of this machine's says nothing on another.
        return _BUNDLED
    default = field.default
    if default in (None, "", frozenset()):
        return "none"
    text = str(default).lower() if isinstance(default, bool) else _number(default)
    return f"`{text}`"


def _number(value: object) -> str:
    return str(value).removesuffix(".0")


def _meaning(name: str) -> str:
    """Return a field's description in one line, with other settings by their environment variables."""
    text = " ".join((Settings.model_fields[name].description or "").split())
    return re.sub(
        r"`(\w+)`", lambda found: f"`{variable(found[1])}`" if found[1] in Settings.model_fields else found[0], text
    )


if __name__ == "__main__":
    sys.stdout.write(settings_table())
