"""POST /v1/decisions as OpenAI's own client sees it: the probabilities of /v1/classify, one engine prefill for all."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.decision_create_params import DecisionCreateParams

from medmoe.server.schemas.openai.decision_request import DecisionRequest
from tests.integration.api.test_chat import client
from tests.integration.api.test_unlike_training import REFERENCE
from tests.integration.conftest import SECRET, Service, ServiceFactory, base64_image, check, until
from tests.integration.training.test_calibration import CLASSIFICATION, LABELS, calibrate

PATH = "/v1/decisions"
URL = f"data:image/png;base64,{base64_image()}"
QUESTIONS: list[dict[str, Any]] = [
    {"type": "predicate", "instructions": "Is there a fracture?", "name": "fracture"},
    {"type": "choice", "instructions": "Which organ?", "choices": [{"value": "lung"}, {"value": "liver"}]},
    {"type": "choice", "instructions": "Is it a CT?", "choices": [{"value": True}, {"value": False}]},
    {"type": "score", "instructions": "How severe?", "levels": [{"label": "mild"}, {"label": "severe"}]},
]


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "input_image", "image_url": URL}]}]


def text(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


async def decide(service: Service, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "input": said(), "questions": QUESTIONS}
    return await client(service).decisions.create(**(asked | fields))


async def classify(service: Service, labels: list[str], **fields: Any) -> list[float]:
    answer = (
        await service.client.post("/v1/classify", json={"image": base64_image(), "labels": labels, **fields})
    ).json()
    return [label["probability"] for label in answer["probabilities"]]


async def test_the_probabilities_are_those_of_classify(service: Service) -> None:
    decision = await decide(service)
    predicate, organ, ct, score = decision.answers
    assert [answer.type for answer in decision.answers] == ["predicate", "choice", "choice", "score"]
    assert (predicate.name, organ.name) == ("fracture", None)
    spellings = ["yes", "Yes", "no", "No"]
    lower, upper, *_ = await classify(service, spellings, question="Is there a fracture?")
    assert predicate.probability == pytest.approx(lower + upper, abs=1e-12)
    expected = await classify(service, ["lung", "liver"], question="Which organ?")
    assert [one.probability for one in organ.probabilities] == expected
    assert organ.confidence == max(expected)
    assert organ.choice == ("lung", "liver")[expected.index(max(expected))]
    assert [one.value for one in ct.probabilities] == [True, False]
    lower, upper, *_ = await classify(service, spellings, question="Is it a CT?")
    assert ct.probabilities[0].probability == pytest.approx(lower + upper, abs=1e-12)
    expected = await classify(service, ["mild", "severe"], question="How severe?")
    assert [(one.label, one.value, one.probability) for one in score.probabilities] == [
        ("mild", 0, expected[0]),
        ("severe", 1, expected[1]),
    ]
    assert score.score == expected[1]
    for answer in (organ, ct, score):
        assert sum(one.probability for one in answer.probabilities) == pytest.approx(1, abs=1e-9)
    assert decision.model == "tiny"
    assert decision.usage.input_tokens == decision.usage.total_tokens > 0


async def test_texts_beside_the_image_stand_before_each_question(service: Service) -> None:
    question = QUESTIONS[1] | {"instructions": [text("Which"), text("organ?")]}
    decision = await decide(
        service, input=[*said(text("An old man.")), {"role": "user", "content": "A CT."}], questions=[question]
    )
    expected = await classify(service, ["lung", "liver"], question="An old man.\nA CT.\nWhich\norgan?")
    assert [one.probability for one in decision.answers[0].probabilities] == expected


async def test_one_request_decodes_and_waits_once(service: Service) -> None:
    decision = await decide(service, extra_body={"include_routing": True, "modality": "CT"})
    stats = (await service.client.get("/v1/router/stats")).json()
    assert set(stats["by_route"]) == {"decisions"}
    metrics = (await service.client.get("/metrics")).text
    assert 'medmoe_requests_total{route="/v1/decisions",status="200"} 1.0' in metrics
    (layer, *_) = decision.medmoe["routing"]["layers"]
    # The image's tokens count once, although each of the four prompts carries them.
    assert sum(layer["image"]) == service.state.active.checkpoint.config.num_image_tokens
    assert service.state.admission.in_flight == 0


@pytest.mark.parametrize("instructions", ["", "\u200b"], ids=["empty", "invisible"])
async def test_an_empty_instruction_is_the_checkpoints_own_question_which_is_calibrated(
    running: ServiceFactory, checkpoint: Path, tmp_path: Path, instructions: str
) -> None:
    directory = calibrate(checkpoint, tmp_path / "calibrated", classification=CLASSIFICATION)
    asked = {"type": "choice", "instructions": instructions, "choices": [{"value": label} for label in LABELS]}
    async with running(model=directory) as service:
        own, other = (await decide(service, questions=[asked, asked | {"instructions": "Which?"}])).answers
        assert [one.probability for one in own.probabilities] == await classify(service, LABELS)
        assert (own.medmoe["calibration"]["datasets"], other.medmoe["calibration"]) == (["slake"], None)
        described = (await decide(service, input=said(text("An old man.")), questions=[asked])).answers[0]
        question = f"An old man.\n{service.state.active.checkpoint.prompt.classification(LABELS)}"
        assert [one.probability for one in described.probabilities] == await classify(
            service, LABELS, question=question
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"min_confidence": 1.0}, "min_confidence"), ({"min_label_mass": 1.0, "min_confidence": 1.0}, "min_label_mass")],
)
async def test_an_answer_that_the_service_abstains_from_is_a_refusal(
    running: ServiceFactory, fields: dict[str, Any], reason: str
) -> None:
    async with running(**fields) as service:
        refused = (await decide(service)).answers
        assert [(answer.type, answer.name) for answer in refused] == [
            ("refusal", question.get("name")) for question in QUESTIONS
        ]
        assert {answer.medmoe["reason"] for answer in refused} == {reason}
        allowed = await decide(service, extra_body={"min_confidence": 0, "min_label_mass": 0})
        assert "refusal" not in {answer.type for answer in allowed.answers}


async def test_answers_about_an_image_unlike_training_are_refusals(service: Service) -> None:
    service.state.active.checkpoint.training_reference = REFERENCE
    service.engine.unlike_training = 2.5
    decision = await decide(service)
    assert decision.medmoe["unlike_training"]["flagged"]
    assert {answer.medmoe["reason"] for answer in decision.answers} == {"unlike_training"}
    allowed = await decide(service, extra_body={"allow_unlike_training": True})
    assert "refusal" not in {answer.type for answer in allowed.answers}


NEUTRAL: list[dict[str, Any]] = [
    {"prompt_cache_key": "k", "prompt_cache_options": {"mode": "implicit", "ttl": "30m"}, "safety_identifier": "s"},
    {"prompt_cache_key": None, "prompt_cache_options": None, "safety_identifier": None, "window": None, "model": None},
    {"input": [{"role": "system", "content": ""}, *said()]},
    {
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {
                        "type": "input_image",
                        "image_url": URL,
                        "detail": "low",
                        "prompt_cache_breakpoint": {"mode": "explicit"},
                    }
                ],
            }
        ]
    },
    {"questions": [QUESTIONS[0], QUESTIONS[1] | {"name": None}, *QUESTIONS[2:]]},
]


async def test_what_changes_nothing_is_accepted(service: Service) -> None:
    body = {"model": "tiny", "input": said(), "questions": QUESTIONS}
    plain = (await service.client.post(PATH, json=body)).json()
    for fields in NEUTRAL:
        response = await service.client.post(PATH, json=body | fields)
        assert response.status_code == 200, response.text
        assert response.json()["answers"] == plain["answers"], fields


def choice(*values: Any, **fields: Any) -> dict[str, Any]:
    return {"questions": [QUESTIONS[0], QUESTIONS[1] | {"choices": [{"value": value} for value in values], **fields}]}


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"input": SECRET}, "input"),
    ({"input": [{"role": "user", "content": SECRET}]}, "input"),
    ({"input": [*said(), *said()]}, "input"),
    ({"input": [{"role": "developer", "content": SECRET}, *said()]}, "input.0.role"),
    ({"input": [*said(), {"role": "assistant", "content": SECRET}]}, "input.1.role"),
    ({"input": [*said(), {"type": "function_call", "call_id": SECRET}]}, "input.1.type"),
    ({"input": said({"type": "input_json", "data": {SECRET: 1}})}, "input.0.content.0.type"),
    ({"questions": [{"type": SECRET, "instructions": "Is it?"}]}, "questions.0.type"),
    ({"questions": [QUESTIONS[0] | {"instructions": [{"type": "input_image"}]}]}, "questions.0.instructions.0.type"),
    (choice("lung", "liver", choices=[{"value": "a", "description": SECRET}]), "questions.1.choices.0.description"),
]
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": said({"type": "input_text", "text": 5})}, "input.0.content.0.text"),
    ({"questions": []}, "questions"),
    ({"questions": QUESTIONS * 17}, "questions"),
    ({"questions": [QUESTIONS[0] | {"instructions": " "}]}, "questions.0.instructions"),
    ({"questions": [QUESTIONS[0] | {SECRET: 1}]}, "questions.0"),
    ({"questions": [QUESTIONS[0], QUESTIONS[0] | {"instructions": "x" * 5000}]}, "questions.1.instructions"),
    (choice("lung"), "questions.1.choices"),
    (choice("lung", "lung"), "questions.1.choices"),
    (choice(True, "yes"), "questions.1.choices"),
    (choice(True, False, instructions=""), "questions.1"),
    (choice(True, False, instructions="\u200b"), "questions.1"),
    (choice("lung", 5), "questions.1.choices.1.value"),
    (choice("lung", "x" * 500), "questions.1.choices.1.value"),
    (choice(*map(str, range(129))), "questions.1.choices"),
    (choice(True, *map(str, range(127))), "questions.1.choices"),
    ({"window": SECRET}, "window"),
    ({"modality": SECRET}, "modality"),
]


async def test_what_is_refused_is_named_as_the_client_named_it(service: Service) -> None:
    before = service.engine.started
    for status, code, cases in ((400, "unsupported_parameter", UNSUPPORTED), (422, "invalid_field", INVALID)):
        for fields, param in cases:
            body = {"model": "tiny", "input": said(), "questions": QUESTIONS} | fields
            check(await service.client.post(PATH, json=body), status, code, param)
    assert service.engine.started == before


async def test_other_faults_are_named_too(service: Service) -> None:
    with pytest.raises(openai.NotFoundError):
        await decide(service, model=SECRET)
    for url, status, code in (
        ("AAAA", 400, "malformed_image"),
        ("data:image/png;base64,R0lGODlh", 415, "unsupported_image"),
    ):
        image = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
        body = {"input": image, "questions": QUESTIONS}
        check(await service.client.post(PATH, json=body), status, code, "input.0.content.0.image_url")
    long = [QUESTIONS[0], QUESTIONS[0] | {"instructions": "zq " * 600}]
    response = await service.client.post(PATH, json={"input": said(), "questions": long})
    check(response, 422, "invalid_prompt", "questions.1.instructions")


async def test_all_questions_together_are_bounded(running: ServiceFactory) -> None:
    async with running(max_label_steps=10) as service:
        body = {"input": said(), "questions": [QUESTIONS[0]] * 11}
        check(await service.client.post(PATH, json=body), 422, "invalid_field", "questions")


async def test_leaving_stops_the_engine(service: Service) -> None:
    service.engine.delay = 3600
    before = service.engine.started
    leaving = asyncio.create_task(decide(service))
    await until(lambda: service.engine.started > before)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert service.engine.aborted == service.engine.started - before
    assert service.state.admission.in_flight == 0


def test_every_field_of_openais_is_known() -> None:
    assert set(DecisionCreateParams.__annotations__) <= set(DecisionRequest.model_fields)
