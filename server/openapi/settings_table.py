"""SETTINGS.md: every setting as a table, for whoever deploys and does not read Python.

    python -m medmoe.server.openapi.settings_table > server/SETTINGS.md

makes it anew from settings.py, which stays the only place where a setting is declared; a test compares the two.
"""

import re
import sys
from typing import Any

from medmoe.server.settings import PREFIX, Settings

COMMAND = "python -m medmoe.server.openapi.settings_table > server/SETTINGS.md"

_HEAD = f"""# Settings

Environment variables of the service, and what each costs. An empty variable is as good as none, an unknown one that
begins with `{PREFIX}` is refused at the start, and all are read once. Made from [settings.py](settings.py) by
`{COMMAND}`.

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
    """The whole document, Markdown."""
    return _HEAD + "".join(_row(name) for name in Settings.model_fields)


def variable(name: str) -> str:
    """What a field is called in the environment."""
    return (PREFIX + name).upper()


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
        return f", above {_number(above)}"
    if most is not None:
        return f", {_number(least)} to {_number(most)}"
    return "" if least is None else f", from {_number(least)}"


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        # A path of this machine's says nothing on another.
        return _BUNDLED
    default = field.default
    if default is None or default == frozenset():
        return "none"
    text = str(default).lower() if isinstance(default, bool) else _number(default)
    return f"`{text}`"


def _number(value: object) -> str:
    return str(value).removesuffix(".0")


def _meaning(name: str) -> str:
    """The field's own words in one line, in which other settings are called as in the environment."""
    text = " ".join((Settings.model_fields[name].description or "").split())
    return re.sub(
        r"`(\w+)`", lambda found: f"`{variable(found[1])}`" if found[1] in Settings.model_fields else found[0], text
    )


if __name__ == "__main__":
    sys.stdout.write(settings_table())
