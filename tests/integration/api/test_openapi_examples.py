"""Everything in the OpenAPI document has an example, and every example is true."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from medmoe.model.config import BUNDLED
from medmoe.model.files.weight_files import weights_sha256
from medmoe.server.auth.key_file import new_key
from medmoe.server.openapi.requests import EXAMPLES
from medmoe.server.settings import Settings
from tests.integration.conftest import Service, ServiceFactory
from tests.openapi_examples import beginning, dicom_file, drawn_image, series_archive

COMMAND = "python -m tests.openapi_examples"


@pytest.fixture
async def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def places(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each place of the document that describes something sent, and what it is called: bodies, answers, parameters."""
    for method, path, operation in operations(document):
        name = f"{method} {path}"
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name}: request, {kind}", content
        for parameter in operation.get("parameters", ()):
            yield f"{name}: parameter {parameter['name']}", parameter
        for status, response in operation["responses"].items():
            assert response["content"], f"{name}: {status}"
            for kind, content in response["content"].items():
                yield f"{name}: {status}, {kind}", content


def examples(described: dict[str, Any]) -> dict[str, Any]:
    if "example" in described:
        return {"example": described["example"]}
    return {name: example["value"] for name, example in described.get("examples", {}).items()}


def test_everything_that_is_sent_has_an_example(document: dict[str, Any]) -> None:
    found = dict(places(document))
    assert not [name for name, described in found.items() if not examples(described)]
    for name in (
        "POST /v1/vqa: request, multipart/form-data",
        "GET /metrics: 200, text/plain",
        "GET /v1/router/stats: parameter window",
    ):
        assert name in found  # fmt: skip


def test_every_example_is_valid_by_its_own_schema(document: dict[str, Any]) -> None:
    checked = 0
    for name, described in places(document):
        if "schema" not in described:
            assert name.endswith("text/event-stream")
            continue
        schema = described["schema"] | {"components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(schema)
        for title, value in examples(described).items():
            problems = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]
            assert not problems, f"{name}, {title}: {problems}"
            checked += 1
    assert checked > 150


def fields(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside one that has examples of its own."""
    if isinstance(schema, dict):
        if isinstance(schema.get("examples"), list):
            yield schema
        for one in schema.values():
            yield from fields(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from fields(one)


def test_examples_of_single_fields_are_valid_too(document: dict[str, Any]) -> None:
    found = list(fields(document))
    assert len(found) > 20
    for schema in found:
        for value in schema["examples"]:
            jsonschema.validate(value, schema | {"components": document["components"]})


async def test_a_form_that_was_filled_in_by_the_documents_page_is_answered(
    document: dict[str, Any], service: Service
) -> None:
    """It puts the first example of each field there, or its default; a window is for DICOM images alone."""
    for path in ("/v1/vqa", "/v1/classify", "/v1/render"):
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        filled = {
            name: schema["examples"][0] if "examples" in schema else schema["default"]
            for name, schema in form.items()
            if name not in ("image", "window")
        }
        answer = await send(service, "POST", path, "multipart/form-data", filled)
        assert answer.status_code == 200, answer.text


async def test_every_request_is_answered_as_documented(document: dict[str, Any], service: Service) -> None:
    for method, path, operation in operations(document):
        if path.startswith("/admin/") or operation["tags"] == ["batches"]:
            # This deployment allows no change of the checkpoint; tests/integration/batches sends the others, which need
            # files that exist.
            continue
        for kind, described in operation.get("requestBody", {}).get("content", {}).items():
            for title, body in examples(described).items():
                sent = body | ({"model": "tiny"} if "model" in body else {})
                answer = await send(service, method, path, kind, sent)
                assert answer.status_code == 200, f"{path}, {kind}, {title}: {answer.text}"
                found = answer.headers["content-type"].partition(";")[0]
                promised = operation["responses"]["200"]["content"][found]
                if "schema" in promised:
                    schema = promised["schema"] | {"components": document["components"]}
                    jsonschema.validate(answer.json(), schema)


async def send(service: Service, method: str, path: str, kind: str, body: dict[str, Any]) -> httpx.Response:
    if kind == "application/json":
        return await service.client.request(method, path, json=body)
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in body.items()
        if name not in ("image", "series")
    }
    files = {"series": ("ct.zip", series_archive())} if "series" in body else {"image": ("ct.png", drawn_image())}
    return await service.client.request(method, path, data=fields, files=files)


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "malformed_body": ("/v1/vqa", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "unsupported_content_type": ("/v1/vqa", {"content": b"x", "headers": {"content-type": "text/plain"}}),
    "invalid_field": ("/v1/vqa", {"json": {"image": "AAAA"}}),
    "malformed_image": ("/v1/vqa", {"json": {"image": "?", "question": "q"}}),
    "unsupported_image": ("/v1/classify", {"json": {"image": "AAAA", "labels": ["a", "b"]}}),
    "image_url_not_allowed": ("/v1/render", {"json": {"image": "https://example.org/a.png"}}),
    "unsupported_parameter": ("/v1/chat/completions", {"json": {"messages": [], "top_p": 0.5}}),
}


@pytest.mark.parametrize("code", WRONG)
async def test_refusals_are_said_in_the_documents_words(service: Service, document: dict[str, Any], code: str) -> None:
    path, options = WRONG[code]
    answer = await service.client.post(path, **options)
    promised = examples(
        document["paths"][path]["post"]["responses"][str(answer.status_code)]["content"]["application/json"]
    )
    expected, found = promised[code]["error"], answer.json()["error"]
    assert found | {"request_id": ""} == expected | {"request_id": ""}


def promised_error(operation: dict[str, Any], answer: httpx.Response) -> dict[str, Any]:
    """What the document says of the refusal that was answered."""
    content = operation["responses"][str(answer.status_code)]["content"]["application/json"]
    found: dict[str, Any] = examples(content)[answer.json()["error"]["code"]]["error"]
    return found


async def test_every_route_documents_what_its_surroundings_refuse(service: Service, document: dict[str, Any]) -> None:
    """A page of another site, an unknown model, and a body that does not come."""
    with_model = 0
    for method, path, operation in operations(document):
        foreign = await service.client.request(method, path, headers={"sec-fetch-site": "cross-site"})
        assert foreign.status_code == 403
        assert promised_error(operation, foreign)["message"] == foreign.json()["error"]["message"]
        for kind, described in operation.get("requestBody", {}).get("content", {}).items():
            assert "request_timeout" in examples(operation["responses"]["408"]["content"]["application/json"])
            assert "overloaded" in examples(operation["responses"]["429"]["content"]["application/json"])
            body = next(iter(examples(described).values())) | {"model": "another"}
            if "model" in described["schema"]["properties"]:
                unknown = await send(service, method, path, kind, body)
                assert unknown.json()["error"]["code"] == "model_not_found", path
                assert promised_error(operation, unknown)["param"] == "model"
                with_model += 1
    assert with_model >= 12


async def test_the_refusals_of_operations_are_too(running: ServiceFactory, tmp_path: Path) -> None:
    key, line = new_key("ward")
    (tmp_path / "keys").write_text(line)
    async with running(api_keys=tmp_path / "keys") as service:
        as_ward = {"Authorization": f"Bearer {key}"}
        document = (await service.client.get("/openapi.json", headers=as_ward)).json()
        for path, headers in (
            ("/v1/models", {}),
            ("/v1/models/other", as_ward),
            ("/v1/model-card", as_ward),
            ("/v1/router/stats?window=1", as_ward),
        ):
            answer = await service.client.get(path, headers=headers)
            template = "/v1/models/{model}" if path.endswith("other") else path.partition("?")[0]
            content = document["paths"][template]["get"]["responses"][str(answer.status_code)]["content"]
            error = answer.json()["error"]
            expected = examples(content["application/json"])[error["code"]]["error"]
            assert error | {"request_id": ""} == expected | {"request_id": ""}


def test_the_answers_are_those_of_the_bundled_checkpoint() -> None:
    digest = weights_sha256(BUNDLED)
    assert Settings.model_fields["model"].get_default(call_default_factory=True) == BUNDLED
    recorded = {path.name: json.loads(path.read_text()) for path in EXAMPLES.glob("*.json")}
    hashes = {
        name: body.get("weights_sha256") or (body.get("provenance") or body["medmoe"]["provenance"])["weights_sha256"]
        for name, body in recorded.items()
        if name.startswith(("vqa", "classify", "chat", "decisions", "explain", "metadata"))
    }
    assert hashes
    assert set(hashes.values()) == {digest}, f"server/openapi/examples is another checkpoint's: {COMMAND}"
    card = (BUNDLED / "README.md").read_text("utf-8")
    assert (EXAMPLES / "model_card.md").read_text("utf-8") == beginning(card), COMMAND
    assert (EXAMPLES / "phantom.png").read_bytes() == drawn_image(), COMMAND
    assert (EXAMPLES / "phantom.dcm").read_bytes() == dicom_file(), COMMAND
    assert (EXAMPLES / "series.zip").read_bytes() == series_archive(), COMMAND
    for name, part in (("question", "answer"), ("labels", "classification")):
        slices = recorded[f"series.{name}.json"]["slices"]
        assert {one[part]["provenance"]["weights_sha256"] for one in slices} == {digest}, COMMAND


def test_no_recorded_answer_took_longer_than_a_request_may() -> None:
    longest = Settings.model_fields["timeout_ms"].default / 1000
    recorded = [json.loads(path.read_text("utf-8")) for path in EXAMPLES.glob("*.json")]
    took = [found["total"] for one in recorded if (found := one.get("timings") or one.get("medmoe", {}).get("timings"))]
    assert len(took) >= 10
    assert max(took) < longest, f"recorded on a machine that stood still: {COMMAND}"
