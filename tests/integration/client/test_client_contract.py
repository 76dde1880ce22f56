"""The client's types against the OpenAPI document: what the service promises is what the client knows."""

from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from medmoe.client import (
    AsyncClient,
    CheckpointStatus,
    ChoiceClassification,
    Classification,
    Decision,
    Explanation,
    Metadata,
    ModelList,
    MultiLabelClassification,
    RenderedImage,
    RouterStats,
    SeriesAnswer,
    SeriesClassification,
    VqaAnswer,
)
from medmoe.client.answers.metadata import Health
from medmoe.client.answers.sources import InstanceList, SeriesList, SourceList, StudyList
from medmoe.client.options import (
    AskOptions,
    AskSeriesOptions,
    ClassifyOptions,
    ClassifySeriesOptions,
    DecisionOptions,
    ExplainOptions,
    RenderOptions,
)
from medmoe.server.schemas.classify import ClassifyFields
from medmoe.server.schemas.openai.decision_request import DecisionRequest
from medmoe.server.schemas.series import SeriesFields
from medmoe.server.schemas.views.explain import ExplainFields
from medmoe.server.schemas.views.render import RenderFields
from medmoe.server.schemas.vqa import VQAFields
from tests.integration.conftest import Service

NEUTRAL = ("prompt_cache_key", "prompt_cache_options", "safety_identifier")


def shape(schema: Any, definitions: dict[str, Any]) -> Any:
    """Names, nesting and kinds of a JSON schema; what may be null; no words, no lists of words."""
    if "$ref" in schema:
        return shape(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema or "oneOf" in schema:
        each_of = schema.get("anyOf") or schema["oneOf"]
        kinds = {repr(one): one for one in (shape(each, definitions) for each in each_of)}
        return {"any": kinds} if len(kinds) > 1 else next(iter(kinds.values()))
    if "properties" in schema:
        return {name: shape(one, definitions) for name, one in sorted(schema["properties"].items())}
    if "prefixItems" in schema:
        return [shape(one, definitions) for one in schema["prefixItems"]]
    if schema.get("type") == "array":
        return [shape(schema["items"], definitions), "..."]
    if isinstance(schema.get("additionalProperties"), dict):
        return {"*": shape(schema["additionalProperties"], definitions)}
    return "string" if "const" in schema or "enum" in schema else schema["type"]


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/v1/vqa", "VQAResponse", VqaAnswer),
        ("/v1/classify", "ClassifyResponse", Classification),
        ("/v1/classify", "ChoiceResponse", ChoiceClassification),
        ("/v1/classify", "MultiLabelResponse", MultiLabelClassification),
        ("/v1/decisions", "Decision", Decision),
        ("/v1/explain", "ExplainResponse", Explanation),
        ("/v1/render", "RenderResponse", RenderedImage),
        ("/v1/series", "SeriesAnswer", SeriesAnswer),
        ("/v1/series", "SeriesClassification", SeriesClassification),
        ("/v1/router/stats", "RouterStatsResponse", RouterStats),
        ("/v1/metadata", "Metadata", Metadata),
        ("/v1/models", "ModelList", ModelList),
        ("/admin/checkpoint", "CheckpointStatus", CheckpointStatus),
        ("/v1/sources", "SourceList", SourceList),
        ("/v1/sources/{source}/studies", "StudyList", StudyList),
        ("/v1/sources/{source}/studies/{study}/series", "SeriesList", SeriesList),
        ("/v1/sources/{source}/studies/{study}/series/{series}/instances", "InstanceList", InstanceList),
        ("/health/ready", "Health", Health),
    ],
)
async def test_answers_have_the_fields_that_the_openapi_document_promises(
    service: Service, path: str, name: str, kind: type[BaseModel]
) -> None:
    document = (await service.client.get("/openapi.json")).json()
    promised = document["components"]["schemas"]
    operation = next(iter(document["paths"][path].values()))
    assert f"/{name}" in repr(operation["responses"]["200"])
    mine = kind.model_json_schema(mode="serialization")
    assert shape(mine, mine.get("$defs", {})) == shape(promised[name], promised)


@pytest.mark.parametrize(
    ("options", "fields", "elsewhere"),
    [
        (AskOptions, VQAFields, {"question", "stream"}),
        (ClassifyOptions, ClassifyFields, {"labels", "mode"}),
        (ExplainOptions, ExplainFields, {"question", "labels"}),
        (RenderOptions, RenderFields, set()),
        (DecisionOptions, DecisionRequest, {"input", "questions", *NEUTRAL}),
    ],
)
def test_every_field_of_a_request_is_an_option(options: Any, fields: type[BaseModel], elsewhere: set[str]) -> None:
    assert options.__optional_keys__ == fields.model_fields.keys() - elsewhere


def test_every_field_of_a_series_is_an_option() -> None:
    options = AskSeriesOptions.__optional_keys__ | ClassifySeriesOptions.__optional_keys__
    assert options == SeriesFields.model_fields.keys() - {"labels", "mode", "stream"}


async def test_fields_of_a_newer_service_are_kept(service: Service) -> None:
    body = (await service.client.get("/v1/metadata")).json() | {"shoe_size": 43}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=body)

    async with AsyncClient("http://service", api_key="", transport=httpx.MockTransport(answer)) as client:
        assert (await client.metadata()).model_dump()["shoe_size"] == 43
