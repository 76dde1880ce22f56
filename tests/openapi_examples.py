"""Record the answers of the bundled checkpoint to the example requests of the OpenAPI document.

    python -m tests.openapi_examples

starts the service over the bundled checkpoint, asks it, and writes server/openapi/examples/.
"""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
from PIL import Image

from medmoe.server.openapi.requests import EXAMPLES
from tests.support.images.phantom import chest_ct, chest_ct_file, chest_ct_series
from tests.support.service.server_process import server_process

ROUTES = {
    "/v1/vqa": "vqa",
    "/v1/classify": "classify",
    "/v1/series": "series",
    "/v1/series/render": "series_render",
    "/v1/explain": "explain",
    "/v1/render": "render",
    "/v1/chat/completions": "chat",
    "/v1/decisions": "decisions",
}
"""Routes with a body, and the prefix of their example files."""
_SIDE = 64
_DICOM_SIDE = 128
_SLICES = 4
_METRICS = ("medmoe_requests_total", "medmoe_requests_in_flight", "medmoe_expert_tokens_total")
_CARD_LINES = 24
_TOO_LONG = ("for_the_model",)
"""Examples whose answer is too long for the document."""
_START = 600.0


def drawn_image() -> bytes:
    """Return the PNG of the examples, small enough for the document."""
    shown = np.clip((chest_ct(_SIDE) - (40 - 200)) / 400, 0, 1) * 15
    file = io.BytesIO()
    # Sixteen shades keep the file small.
    Image.fromarray((shown.round() * 17).astype(np.uint8)).save(file, format="PNG", optimize=True)
    return file.getvalue()


def series_archive() -> bytes:
    """Return a ZIP archive of a few slices of the chest CT, small enough for the document."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, data in enumerate(chest_ct_series(_SLICES, _SIDE)):
            # A fixed time, so that the file is the same each time.
            archive.writestr(zipfile.ZipInfo(f"{index}.dcm"), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def dicom_file() -> bytes:
    """Return the chest CT of README's example with a window: a DICOM file of 33 kB."""
    return chest_ct_file(_DICOM_SIDE)


def record(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """Yield the name and content of each example file."""
    document = client.get("/openapi.json").raise_for_status().json()
    for path, route in ROUTES.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name, example in content["examples"].items():
            if name in _TOO_LONG:
                continue
            answer = client.post(path, json=example["value"]).raise_for_status()
            if name == "streamed":
                yield f"{route}.streamed.txt", answer.text
            else:
                yield f"{route}.{name}.json", _json(answer.json())
    model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
    for name, path in {
        "router_stats.an_hour": "/v1/router/stats?window=3600",
        "metadata.bundled_checkpoint": "/v1/metadata",
        "models.bundled_checkpoint": "/v1/models",
        "model.bundled_checkpoint": f"/v1/models/{model}",
        "health.ready": "/health/ready",
    }.items():
        answer = client.get(path).raise_for_status().json()
        yield f"{name}.json", _json(_first_layers(answer) if name.startswith("router") else answer)
    yield "health.starting.json", _json({"status": "starting"})
    card = client.get("/v1/model-card").raise_for_status().text
    yield "model_card.md", beginning(card)
    yield "metrics.txt", "".join(_series(client.get("/metrics").raise_for_status().text))


def beginning(card: str) -> str:
    """Return the lines of a model card that the document shows."""
    return "\n".join(card.splitlines()[:_CARD_LINES]) + "\n...\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _first_layers(value: Any) -> Any:
    """Return `value` with only the first item of each list of layers."""
    if isinstance(value, dict):
        return {name: _first_layers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_first_layers(one) for one in (value[:1] if value and _is_layer(value[0]) else value)]
    return value


def _is_layer(value: Any) -> bool:
    return isinstance(value, dict) and "layer" in value


def _series(exposition: str) -> Iterator[str]:
    """Yield the first lines of some of the service's own series."""
    for name in _METRICS:
        lines = [line for line in exposition.splitlines() if name in line]
        yield from (f"{line}\n" for line in lines[:6])


def main() -> int:
    (EXAMPLES / "phantom.png").write_bytes(drawn_image())
    (EXAMPLES / "phantom.dcm").write_bytes(dicom_file())
    (EXAMPLES / "series.zip").write_bytes(series_archive())
    with server_process() as server:
        server.wait_ready(_START)
        with httpx.Client(base_url=server.url, timeout=_START) as client:
            for name, content in record(client):
                (EXAMPLES / name).write_text(content, encoding="utf-8")
                print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
