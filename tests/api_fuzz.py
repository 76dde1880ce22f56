"""Fuzz the whole service with Schemathesis: valid and invalid requests from the OpenAPI document, all checks on.

    python -m tests.api_fuzz --examples 1000

prints how many requests each operation got, and every way in which the service and its document disagree.
"""

import argparse
import base64
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.python import asgi
from schemathesis.schemas import BaseSchema

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.admission.readiness import Phase
from medmoe.server.app import create_app
from medmoe.server.auth.key_file import new_key
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer
from tests.support.images.series_files import archive, ct_series
from tests.support.images.tagged_images import png

_IMAGE = png("a text chunk")
_SERIES = archive(ct_series(range(3)))


@dataclass(kw_only=True, slots=True)
class Findings:
    """Hold the result of a run."""

    requests: Counter[str] = field(default_factory=Counter)
    """Requests by operation."""
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    """By operation and kind, the first of each: what the check said, and the request as a curl command."""


def fuzz(directory: Path, *, examples: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Findings:
    """Fuzz the app over a tiny checkpoint that is made in `directory`: `examples` random requests an operation.

    Schemathesis adds its own: the document's examples, and every boundary of every field.
    """
    app, key = _service(directory)
    headers = {"Authorization": f"Bearer {key}"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=_config(key, examples, seed), headers=headers)
    _wait(app)
    streaming = {
        path for path in schema.raw_schema["paths"] if '"stream"' in json.dumps(schema.raw_schema["paths"][path])
    }

    @schema.hook("map_body")
    def meaningful(context: Any, body: Any) -> Any:
        """Return the request with a valid image and modality, which random text never is."""
        if not isinstance(body, dict):
            return body
        changed = {name: _with_data_url(value) for name, value in body.items()}
        image, modality, series = body.get("image"), body.get("modality"), body.get("series")
        if isinstance(image, str) and len(image) % 4:
            changed["image"] = base64.b64encode(_IMAGE).decode()
        if isinstance(image, bytes) and len(image) % 4:
            changed["image"] = _IMAGE
        if isinstance(series, str) and len(series) % 4:
            changed["series"] = base64.b64encode(_SERIES).decode()
        if isinstance(series, list) and len(series) % 4:
            changed["series"] = [_SERIES]
        if isinstance(modality, str) and len(modality) % 4:
            changed["modality"] = "CT"
        if context.operation.path in streaming and len(str(body.get("question"))) % 3 == 1:
            changed["stream"] = True
        return changed

    findings = Findings()
    try:
        _collect(findings, schema, say)
    finally:
        asgi.shutdown_lifespans()
    return findings


def _with_data_url(value: Any, name: str = "") -> Any:
    """Return a field of OpenAI's API with a valid image in three of four places for an image's URL."""
    if isinstance(value, dict):
        return {key: _with_data_url(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_data_url(one) for one in value]
    if name in ("url", "image_url") and isinstance(value, str) and len(value) % 4:
        return f"data:image/png;base64,{base64.b64encode(_IMAGE).decode()}"
    return value


def _collect(findings: Findings, schema: BaseSchema, say: Callable[[str], None]) -> None:
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(findings, event)
            say(f"{event.phase.value}: {event.label}: {event.status.value}")
        elif isinstance(event, events.NonFatalError):
            findings.failures[f"{event.label}: error"] = str(event.value)
        elif isinstance(event, events.FatalError):
            raise event.exception


def _service(directory: Path) -> tuple[FastAPI, str]:
    key, line = new_key("fuzz")
    (directory / "keys").write_text(line)
    (directory / "config.json").write_text(tiny_config().to_json())
    (directory / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    config = MedMoEConfig.from_directory(directory)
    engine = FakeEngine(config, Prompt.from_directory(directory, config))
    settings = Settings(model=directory, api_keys=directory / "keys", batch_dir=directory / "batches")
    return create_app(settings, engine), key


def _config(key: str, examples: int, seed: int) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "auth": {"openapi": {"HTTPBearer": {"bearer": key}}},
            "generation": {"max-examples": examples, "database": "none"},
            "cache": {"enabled": False},
            "checks": {
                # A client that allows a millisecond is told that it was not enough.
                "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "504"]},
                # No schema can say that a string is an image, or that a text fits the model's context.
                "positive_data_acceptance": {"enabled": False},
            },
        }
    )


def _wait(app: FastAPI) -> None:
    until = time.monotonic() + 30
    while app.state.medmoe.readiness.phase is not Phase.READY:
        if time.monotonic() > until:
            raise RuntimeError("the service did not become ready")
        time.sleep(0.01)


def _note(findings: Findings, event: events.ScenarioFinished) -> None:
    for case_id, interaction in event.recorder.interactions.items():
        label = event.recorder.cases[case_id].value.operation.label
        findings.requests[label] += 1
        if interaction.response is not None:
            findings.statuses[interaction.response.status_code] += 1
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                label = event.recorder.cases[case_id].value.operation.label
                info = check.failure_info
                text = f"{info.failure.title}: {info.failure.message}\n{info.code_sample}"
                findings.failures.setdefault(f"{label}: {check.name}: {info.failure.title}", text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the service's HTTP interface, with the fake engine.")
    parser.add_argument("--examples", type=int, default=500, help="random requests for each operation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = fuzz(Path(directory), examples=options.examples, seed=options.seed, say=print)
    for label, count in sorted(found.requests.items()):
        print(f"{count:6} {label}")
    print(f"{found.requests.total():6} requests, statuses {dict(sorted(found.statuses.items()))}")
    for name, text in found.failures.items():
        print(f"\n{name}\n{text}")
    print(f"{len(found.failures)} disagreements between the service and its document")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
