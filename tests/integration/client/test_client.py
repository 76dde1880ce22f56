"""The client for asyncio against the whole app, without a socket: every route, every shape, every refusal."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from medmoe.client import (
    AsyncClient,
    BadRequest,
    Choice,
    ChoiceAnswer,
    ChoiceClassification,
    Classification,
    Delta,
    MultiLabelClassification,
    Overloaded,
    Predicate,
    PredicateAnswer,
    Retry,
    Score,
    ScoreAnswer,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
    Unauthorized,
    VqaAnswer,
)
from medmoe.model.errors import MedMoEError
from medmoe.server.auth.key_file import new_key
from medmoe.server.engine.base import EngineDeadError
from tests.integration.conftest import Service, ServiceFactory, gives_up, image_bytes, until
from tests.support.images.dicom_files import dicom, gradient

ONCE = Retry(attempts=1)
LABELS = ["CT", "MRI", "X-ray"]
QUESTION = "Which organ is this?"
"""The fake engine has an answer of several words for it."""


class Recorded(httpx.AsyncBaseTransport):
    """Into the app, keeping what was sent."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return await self._inner.handle_async_request(request)


@asynccontextmanager
async def asking(service: Service, **options: Any) -> AsyncIterator[tuple[AsyncClient, Recorded]]:
    transport = Recorded(service.app)
    options = {"api_key": "", "retry": ONCE} | options
    async with AsyncClient("http://service", transport=transport, **options) as client:
        yield client, transport


async def test_an_answer_is_what_the_service_says(service: Service) -> None:
    async with asking(service) as (client, _):
        found = await client.ask(
            image_bytes(), "Is there a fracture?", include_routing=True, max_tokens=12, modality="CT"
        )
    encoded = base64.b64encode(image_bytes()).decode()
    body = {"image": encoded, "question": "Is there a fracture?", "include_routing": True, "max_tokens": 12}
    same = (await service.client.post("/v1/vqa", json=body)).json()
    told = found.model_dump(mode="json")
    for name in ("id", "timings"):
        del told[name], same[name]
    assert told == same
    assert isinstance(found, VqaAnswer)
    assert found.routing is not None
    assert found.routing.layers[0].layer == 0


async def test_an_explanation_is_what_the_service_says(service: Service) -> None:
    async with asking(service) as (client, _):
        found = await client.explain(image_bytes(), QUESTION, grid=2, overlay="layer", modality="CT")
        label = await client.explain(image_bytes(), labels=LABELS, label="MRI", grid=2)
        said = await client.ask(image_bytes(), QUESTION)
        with pytest.raises(TypeError, match="not one"):
            await client.explain(image_bytes(), labels="CT")
    assert (found.answer, label.answer) == (said.answer, "MRI")
    assert [len(row) for row in found.drops] == [2, 2]
    assert found.overlay is not None
    assert label.overlay is None


async def test_decisions_are_what_the_service_says(service: Service) -> None:
    questions = [
        Predicate("Is there a fracture?", name="fracture"),
        Choice("Is it a CT?", [True, False]),
        Score("How severe?", ["mild", "severe"]),
    ]
    async with asking(service) as (client, transport):
        predicate, choice, score = (await client.decisions(image_bytes(), questions, modality="CT")).answers
        likely = await client.classify(image_bytes(), ["mild", "severe"], question="How severe?")
    assert isinstance(predicate, PredicateAnswer)
    assert predicate.name == "fracture"
    assert isinstance(choice, ChoiceAnswer)
    assert isinstance(choice.choice, bool)
    assert isinstance(score, ScoreAnswer)
    assert score.score == likely.probabilities[1].probability
    assert b"modality" in transport.sent[0].content


@pytest.mark.parametrize(
    "question", ["Is it caf\u00e9?\nOr \u4e2d\u6587 \u2028?", '["a"]', 'a "quoted" & \r\n-- line', "=1+1"]
)
async def test_a_question_arrives_as_it_was_asked(service: Service, question: str) -> None:
    async with asking(service) as (client, _):
        mine = await client.ask(image_bytes(), question)
    body = {"image": base64.b64encode(image_bytes()).decode(), "question": question}
    theirs = (await service.client.post("/v1/vqa", json=body)).json()
    assert (mine.answer, mine.confidence.value if mine.confidence else None) == (
        theirs["answer"],
        theirs["confidence"]["value"],
    )


async def test_a_stream_gives_pieces_and_then_the_whole(service: Service) -> None:
    async with asking(service) as (client, _):
        whole = await client.ask(image_bytes(), QUESTION)
        events = [event async for event in client.stream(image_bytes(), QUESTION)]
    *pieces, last = events
    assert isinstance(last, VqaAnswer)
    assert last.answer == whole.answer
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces if isinstance(piece, Delta)) == whole.answer


@pytest.mark.parametrize("labels", [LABELS, ['["a"]', "[b"], ["a, b", "caf\u00e9 \u4e2d", "c"]])
async def test_labels_arrive_as_they_were_given(service: Service, labels: list[str]) -> None:
    async with asking(service) as (client, _):
        found = await client.classify(image_bytes(), labels)
        chosen = await client.classify(image_bytes(), labels, mode="choice", permutations=2)
        each = await client.classify(image_bytes(), labels, mode="multi_label")
        one = await client.classify(image_bytes(), labels[:1], mode="multi_label", min_confidence=1)
    assert isinstance(found, Classification)
    assert [row.label for row in found.probabilities] == labels
    assert found.label == max(found.probabilities, key=lambda row: row.probability).label
    assert not found.provenance.length_normalized
    assert isinstance(chosen, ChoiceClassification)
    assert (chosen.permutations, chosen.provenance.permutations) == (2, 2)
    assert isinstance(each, MultiLabelClassification)
    assert [row.label for row in each.probabilities] == labels
    assert [row.label for row in one.probabilities] == labels[:1]
    assert one.abstained


async def test_statistics_and_what_is_served(service: Service) -> None:
    async with asking(service) as (client, transport):
        await client.ask(image_bytes(), "What is shown?", modality="MRI")
        stats = await client.router_stats(window=300)
        assert transport.sent[-1].url.query == b"window=300"
        assert (await client.router_stats()).window_seconds is None
        metadata = await client.metadata()
        models = await client.models()
        ready = await client.ready()
        with pytest.raises(BadRequest) as raised:
            await client.model_card()
    assert stats.window_seconds == 300
    assert stats.by_modality["MRI"][0].tokens == stats.overall[0].tokens > 0
    assert stats.overall[0].experts[0].load_share <= 1
    assert metadata.model_dump(mode="json") == (await service.client.get("/v1/metadata")).json()
    assert models.data[0].id == "tiny"
    assert ready.status == "ready"
    assert raised.value.code == "no_model_card"


@pytest.fixture
def with_card(tmp_path: Path, checkpoint: Path) -> Path:
    shutil.copytree(checkpoint, tmp_path / "with_card")
    (tmp_path / "with_card" / "README.md").write_text("# Caf\u00e9\n")
    return tmp_path / "with_card"


async def test_the_model_card_is_text(running: ServiceFactory, with_card: Path) -> None:
    async with running(model=with_card) as service, asking(service) as (client, _):
        assert await client.model_card() == "# Caf\u00e9\n"


async def test_a_dicom_file_with_its_window_and_frame(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "ct"
    frames = np.stack([gradient((40, 48))] * 2)
    path.write_bytes(dicom(frames, NumberOfFrames=2, PatientName="DOE^JANE", RescaleSlope=1, RescaleIntercept=0))
    async with asking(service) as (client, _):
        found = await client.ask(path, "Is there a nodule?", window="lung,mediastinum,bone", frame=1)
        assert found.provenance.rendering.frame == 1
        assert [window.centre for window in found.provenance.rendering.windows] == [-600, 50, 400]
        label = await client.classify(path, LABELS, window="40/400")
        assert label.provenance.rendering.windows[0].width == 400


async def test_no_file_name_is_sent(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "DOE^JANE.png"
    path.write_bytes(image_bytes())
    async with asking(service) as (client, transport):
        await client.ask(path, "What is shown?")
        with path.open("rb") as file:
            await client.classify(file, LABELS)
    assert len(transport.sent) == 2
    for request in transport.sent:
        everything = await request.aread() + repr(request.headers.raw).encode() + str(request.url).encode()
        assert b"DOE" not in everything
        assert b'filename="image"' in everything


async def test_the_key_goes_into_the_header_and_is_shown_nowhere(
    running: ServiceFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, line = new_key("ward-7")
    (tmp_path / "keys").write_text(line)
    async with running(api_keys=tmp_path / "keys") as service:
        async with asking(service, api_key=key) as (client, _):
            await client.metadata()
            assert key not in repr(client)
            assert key not in repr(vars(client))
        async with asking(service) as (client, _):
            with pytest.raises(Unauthorized) as raised:
                await client.ask(image_bytes(), "What is shown?")
            assert raised.value.code == "invalid_api_key"
        monkeypatch.setenv("MEDMOE_API_KEY", key)
        async with asking(service, api_key=None) as (client, _):
            await client.metadata()


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "caf\u00e9", "\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError) as raised:
        AsyncClient("http://service", api_key=key)
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "service:8000", "ftp://service", "http://", "http://user:SECRET@service", "http://service?key=SECRET"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        AsyncClient(url, api_key="")
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"max_tokens": 10**6}, "invalid_field", "max_tokens"),
        ({"window": "lung"}, "invalid_field", "window"),
        ({"modality": "palmistry"}, "invalid_field", "modality"),
        ({"temperature": float("nan")}, "invalid_field", "temperature"),
    ],
)
async def test_a_refusal_says_everything_that_the_service_says(
    service: Service, options: dict[str, Any], code: str, param: str
) -> None:
    async with asking(service) as (client, _):
        with pytest.raises(BadRequest) as raised:
            await client.ask(image_bytes(), "What is shown?", **options)
        error = raised.value
        assert (error.status, error.code, error.param, error.type) == (422, code, param, "invalid_request_error")
        assert error.request_id
        assert isinstance(error, MedMoEError)
        with pytest.raises(BadRequest):
            async with aclosing(client.stream(image_bytes(), "What is shown?", **options)) as events:
                await anext(events)


async def test_an_image_that_is_none_is_refused_by_the_service(service: Service) -> None:
    async with asking(service) as (client, _):
        with pytest.raises(BadRequest) as raised:
            await client.ask(b"no image", "What is shown?")
        assert (raised.value.status, raised.value.code) == (415, "unsupported_image")


async def test_a_misspelt_option_does_not_leave_the_program(service: Service) -> None:
    async with asking(service) as (client, transport):
        with pytest.raises(TypeError, match="windw"):
            await client.ask(image_bytes(), "What is shown?", windw="lung")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="several"):
            await client.classify(image_bytes(), "CT")
        assert not transport.sent


async def test_time_and_room_and_death_have_classes_of_their_own(running: ServiceFactory) -> None:
    async with running(max_concurrent=1, max_queued=0) as service, asking(service) as (client, _):
        service.engine.delay = 3600
        with pytest.raises(ServiceTimeout):
            await client.ask(image_bytes(), "What is shown?", timeout_ms=50)
        inside = asyncio.create_task(client.ask(image_bytes(), "What is shown?"))
        await until(lambda: service.state.admission.in_flight == 1)
        with pytest.raises(Overloaded) as raised:
            await client.ask(image_bytes(), "And now?")
        assert raised.value.retry_after is not None
        inside.cancel()
        await asyncio.gather(inside, return_exceptions=True)
        service.engine.delay = 0
        service.engine.fail_next = EngineDeadError("gone")
        with pytest.raises(ServiceUnavailable):
            await client.ask(image_bytes(), "What is shown?")


async def test_a_failure_in_the_middle_of_a_stream_is_raised_after_its_pieces(service: Service) -> None:
    async with asking(service) as (client, _):
        events = client.stream(image_bytes(), QUESTION)
        service.engine.delay = 0
        original = service.engine._tokens

        async def breaking(request: Any) -> AsyncIterator[Any]:
            count = 0
            async for chunk in original(request):
                count += 1
                if count == 2:
                    raise EngineDeadError("gone")
                yield chunk

        service.engine._tokens = breaking  # type: ignore[method-assign, assignment]
        assert isinstance(await anext(events), Delta)
        with pytest.raises(ServiceError) as raised:
            await anext(events)
        assert raised.value.code == "engine_dead"


async def test_a_caller_that_leaves_frees_the_engine(service: Service) -> None:
    async with asking(service) as (client, _):
        await gives_up(service, client.ask(image_bytes(), "What is shown?"))
