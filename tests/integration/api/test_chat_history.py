"""Chat that goes on: earlier turns and system messages, as the checkpoint's template and the deployment allow."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from medmoe.model.prompt import History
from tests.integration.api.test_chat import PATH, QUESTION, client, image, text, turn
from tests.integration.conftest import SECRET, Service, ServiceFactory, base64_image, check
from tests.integration.training.test_calibration import ANSWERS, calibrate

OTHER = f"data:image/png;base64,{base64_image(shade=7)}"
SYSTEM = {"role": "system", "content": "Answer in one word."}
NEXT = {"role": "user", "content": "Where?"}


def said(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": words}


TALK = [*turn(), said("yes"), NEXT]
"""The image with the first question, and a second question."""


async def ask(service: Service, messages: Any, **fields: Any) -> Any:
    return await service.client.post(PATH, json={"messages": messages, **fields})


def asked(service: Service) -> list[int]:
    assert service.engine.last_request is not None
    return list(service.engine.last_request.prompt_ids)


@pytest.fixture
def with_turns(checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint with a template that has turns and a system message."""
    directory = tmp_path / "turns"
    shutil.copytree(checkpoint, directory)
    config = json.loads((directory / "config.json").read_text())
    turns = {"user": "USER: ", "system_message": "Be polite."}
    config["prompt"] |= {"user": "Be polite. USER: ", "turns": turns}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
async def talking(running: ServiceFactory, with_turns: Path) -> AsyncIterator[Service]:
    async with running(model=with_turns) as service:
        yield service


@pytest.fixture
async def falling_back(running: ServiceFactory) -> AsyncIterator[Service]:
    async with running(chat_history="last_question") as service:
        yield service


async def test_refusals_name_the_setting(service: Service) -> None:
    for messages, param in ((TALK, "messages"), ([SYSTEM, *turn()], "messages.0.role")):
        response = await ask(service, messages)
        check(response, 400, "unsupported_parameter", param)
        assert "MEDMOE_CHAT_HISTORY=last_question" in response.json()["error"]["message"]


async def test_the_fallback_answers_the_last_question_and_says_so(falling_back: Service) -> None:
    plain = (await ask(falling_back, turn(text("Where?"), image()))).json()
    assert plain["medmoe"]["ignored_messages"] == []
    for messages, ignored in (
        ([SYSTEM, *TALK], [0, 1, 2]),
        ([*turn(), said("yes"), *turn(image()), NEXT], [0, 1]),
        ([*turn(), said(""), NEXT], [0, 1]),
        ([said("How can I help?"), *turn(text("Where?"), image())], [0]),
        ([*turn(), *[said("yes"), NEXT] * 400], [*range(800)]),
    ):
        answer = await ask(falling_back, messages)
        assert answer.status_code == 200, answer.text
        assert answer.json()["medmoe"]["ignored_messages"] == ignored
        assert answer.json()["choices"] == plain["choices"]
        assert asked(falling_back) == falling_back.state.active.checkpoint.prompt.question("Where?")
    streamed = await ask(falling_back, TALK, stream=True)
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert chunks[-1]["medmoe"]["ignored_messages"] == [0, 1]


async def test_turns_and_a_system_message_reach_the_model(talking: Service) -> None:
    prompt = talking.state.active.checkpoint.prompt
    history = History(turns=((QUESTION, "yes"),))
    for messages, expected in (
        (TALK, history),
        ([*turn(), said("yes"), *turn(image(), text("Where?"))], history),
        ([*turn(text()), said("yes"), *turn(text("Where?"), image())], History(turns=history.turns, image_turn=1)),
        ([SYSTEM, *TALK], History(turns=history.turns, system_message=SYSTEM["content"])),
        (
            [*turn(image()), {"role": "user", "content": QUESTION}, said("yes"), NEXT],
            history,
        ),
    ):
        answer = await ask(talking, messages)
        assert answer.status_code == 200, answer.text
        assert asked(talking) == prompt.conversation("Where?", expected)
        assert answer.json()["medmoe"]["ignored_messages"] == []
    await ask(talking, [SYSTEM, *turn()])
    assert asked(talking) == prompt.conversation(QUESTION, History(system_message=SYSTEM["content"]))
    await ask(talking, turn())
    assert asked(talking) == prompt.question(QUESTION)


async def test_a_second_image_is_refused_whatever_the_fallback(talking: Service, falling_back: Service) -> None:
    for service in (talking, falling_back):
        before = service.engine.started
        response = await ask(service, [*turn(), said("yes"), *turn(text("Where?"), image(OTHER))])
        check(response, 400, "unsupported_parameter", "messages.2.content.1")
        assert service.engine.started == before


async def test_what_cannot_be_read_is_named(talking: Service) -> None:
    long = {"role": "user", "content": "x" * 3999}
    for messages, status, code, param in (
        ([*turn(), said("yes")], 400, "unsupported_parameter", "messages.1.role"),
        ([*turn(), {"role": "tool", "content": SECRET}, NEXT], 400, "unsupported_parameter", "messages.1.role"),
        ([*TALK[:2], SYSTEM, NEXT], 400, "unsupported_parameter", "messages.2.role"),
        ([text(), said("yes"), NEXT], 400, "unsupported_parameter", "messages.0.role"),
        ([NEXT, said("yes"), NEXT], 400, "unsupported_parameter", "messages.2.content"),
        ([*turn(), said(""), NEXT], 422, "invalid_field", "messages.1"),
        ([*turn(), said("yes"), said("no"), NEXT], 422, "invalid_field", "messages.2"),
        ([*turn(), said("x" * 5000), NEXT], 422, "invalid_field", "messages.1.content"),
        ([*turn(), said("yes") | {"tool_calls": [SECRET]}, NEXT], 422, "invalid_field", "messages.1"),
        (
            [*turn(text(), image(), {"type": SECRET}), said("yes"), NEXT],
            400,
            "unsupported_parameter",
            "messages.0.content.2",
        ),
        ([*turn(), *[said("yes"), long] * 12], 422, "invalid_field", "messages.16"),
        ([*turn(), said("zq " * 600), NEXT], 422, "invalid_prompt", "messages.2.content"),
        (
            [*turn(image("data:image/png;base64,%%%"), text()), said("yes"), NEXT],
            400,
            "malformed_image",
            "messages.0.content.0.image_url.url",
        ),
        (NEXT, 422, "invalid_field", "messages"),
    ):
        check(await ask(talking, messages), status, code, param)


async def test_an_answer_in_a_conversation_is_not_calibrated(
    running: ServiceFactory, with_turns: Path, tmp_path: Path
) -> None:
    directory = calibrate(with_turns, tmp_path / "calibrated", answers=ANSWERS)
    async with running(model=directory) as service:
        first, second = [(await ask(service, messages)).json()["medmoe"] for messages in (turn(), TALK)]
    assert (first["confidence"]["calibrated"], second["confidence"]["calibrated"]) == (True, False)


async def test_this_services_own_options_go_into_extra_body(service: Service) -> None:
    options = {"include_routing": True, "modality": "CT", "min_confidence": 1.0, "timeout_ms": 60_000}
    completion: Any = await client(service).chat.completions.create(
        model="tiny",
        messages=turn(),
        extra_body=options,  # type: ignore[arg-type]
    )
    assert completion.medmoe["routing"]["layers"]
    assert completion.medmoe["abstained"] is True
    assert completion.medmoe["provenance"]["min_confidence"] == 1.0
    assert "CT" in (await service.client.get("/v1/router/stats")).json()["by_modality"]
    for name, value, status in (("window", SECRET, 422), ("frame", 3, 422), ("modality", SECRET, 422)):
        check(await ask(service, turn(), **{name: value}), status, "invalid_field", name)
