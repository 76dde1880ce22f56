"""Write the settings into the chart's values.schema.json: python docker/helm/values_schema.py

Everything else in that file is written by hand. A test compares the file with what this program would write.
"""

import json
from pathlib import Path
from typing import Any

from medmoe.server.settings import Settings

FILE = Path(__file__).parent / "medmoe" / "values.schema.json"
CHARTS_OWN = frozenset(
    {
        "host",
        "port",
        "model",
        "api_keys",
        "insecure",
        "admin_socket",
        "tls_certificate",
        "tls_key",
        "tls_client_ca",
        "audit_dir",
        "audit_key",
        "model_public_key",
    }
)
"""Settings that follow from other values of the chart."""
_KEYS = ("type", "format", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def schema() -> str:
    """Return the file's text with the present settings."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    known = Settings.model_json_schema()["properties"]
    found["properties"]["settings"]["properties"] = {
        name: _setting(field) for name, field in known.items() if name not in CHARTS_OWN
    }
    return json.dumps(found, indent=2) + "\n"


def _setting(field: dict[str, Any]) -> dict[str, Any]:
    (kind,) = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    if kind["type"] == "array":
        # A list with commas in the environment.
        return {"type": "string"}
    return {key: kind[key] for key in _KEYS if key in kind}


if __name__ == "__main__":
    FILE.write_text(schema())
