"""What the commands send: nothing that was not asked for, because an older service refuses fields it does not know."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from medmoe.server.rollout.schema import LoadCheckpoint
from medmoe.server.schemas.classify import ClassifyFields
from medmoe.server.schemas.openai.decision_request import DecisionRequest
from medmoe.server.schemas.series import SeriesFields
from medmoe.server.schemas.views.explain import ExplainFields
from medmoe.server.schemas.views.render import RenderFields
from medmoe.server.schemas.vqa import VQAFields
from tests.integration.conftest import Medmoe, image_bytes
from tests.support.service.scripted_service import refusal, scripted_service

REFUSED = refusal(422, "invalid_field", type_="invalid_request_error")
INSTANCE = ("--source", "pacs", "--study", "1.2", "--series", "1.3")


def sent_fields(headers: Any, body: bytes) -> set[str]:
    if headers["Content-Type"] == "application/json":
        return set(json.loads(body))
    return {name.decode() for name in re.findall(rb'form-data; name="(\w+)"', body)}


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (("ask", "IMAGE", "What?"), {"image", "question"}),
        (("ask", "IMAGE", "What?", "--stream"), {"image", "question", "stream"}),
        (("ask", *INSTANCE, "--instance", "1.4", "What?"), {"image", "question"}),
        (("ask", "IMAGE", "What?", "--allow-uniform"), {"image", "question", "allow_uniform"}),
        (("classify", "IMAGE", "CT", "MRI"), {"image", "labels"}),
        (("classify", "IMAGE", "CT", "MRI", "--mode", "choice"), {"image", "labels", "mode"}),
        (("classify", "IMAGE", "CT", "MRI", "--contextual-calibration"), {"image", "labels", "contextual_calibration"}),
        (("explain", "IMAGE", "What?"), {"image", "question"}),
        (("render", "IMAGE", "OUTPUT.png"), {"image"}),
        (("render", "IMAGE", "OUTPUT.png", "--view", "model"), {"image", "view"}),
        (("decide", "IMAGE", "--predicate", "Is it?"), {"input", "questions"}),
        (("series", *INSTANCE, "What?"), {"series", "question", "stream"}),
        (("series", "IMAGE", "--label", "CT", "--label", "MRI"), {"series", "labels", "stream"}),
        (("series", *INSTANCE, "What?", "--store", "pacs"), {"series", "question", "store"}),
        (("checkpoint", "load", "next"), {"name"}),
        (("checkpoint", "load", "next", "--activate"), {"name", "activate"}),
        (("batch", "FOLDER", "OUTPUT.jsonl", "--question", "What?"), {"image", "question"}),
        (("batch", "FOLDER", "OUTPUT.jsonl", "--label", "CT", "--label", "MRI"), {"image", "labels"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_that_is_not_set_is_not_sent(
    medmoe: Medmoe, tmp_path: Path, command: tuple[str, ...], fields: set[str]
) -> None:
    image = tmp_path / "images" / "a.png"
    image.parent.mkdir()
    image.write_bytes(image_bytes())
    places = {
        "IMAGE": image,
        "FOLDER": image.parent,
        "OUTPUT.png": tmp_path / "o.png",
        "OUTPUT.jsonl": tmp_path / "o.jsonl",
    }
    with scripted_service(REFUSED) as service:
        medmoe(*(places.get(one, one) for one in command), url=service.url)
    (_, headers, body), *_ = service.asked
    assert sent_fields(headers, body) == fields


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("query", "pacs"), "/v1/sources/pacs/studies"),
        (("query", "pacs", "--study", "1.2"), "/v1/sources/pacs/studies/1.2/series"),
        (("query", "pacs", "--study", "1.2", "--limit", "7"), "/v1/sources/pacs/studies/1.2/series?limit=7"),
        (("stats",), "/v1/router/stats"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_parameter_that_is_not_set_is_not_sent(medmoe: Medmoe, command: tuple[str, ...], path: str) -> None:
    with scripted_service(REFUSED) as service:
        medmoe(*command, url=service.url)
    assert service.asked[0][0] == path


@pytest.mark.parametrize(
    "fields",
    [VQAFields, ClassifyFields, SeriesFields, ExplainFields, RenderFields, DecisionRequest, LoadCheckpoint],
)
def test_what_the_client_leaves_out_is_the_default(fields: type[BaseModel]) -> None:
    flags = [field for field in fields.model_fields.values() if field.annotation in (bool, bool | None)]
    assert not any(flag.default for flag in flags)
    modes = {name: field.default for name, field in fields.model_fields.items() if name in ("mode", "view")}
    assert modes.items() <= {("mode", "likelihood"), ("view", "frame")}
