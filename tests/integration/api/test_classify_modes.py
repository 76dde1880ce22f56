"""The modes of POST /v1/classify, each against the fake engine's own distribution, label by label and alone."""

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from medmoe.server.imaging.image import image_id
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, image_bytes

LABELS = ["left", "CT", "left lung", "X-ray", "left lung normal"]
LETTERS = "ABCDE"
OWN = "Which of these is shown: {options}?\nAnswer with the option's letter from the given choices directly."


async def ask(service: Service, **fields: Any) -> dict[str, Any]:
    response = await service.client.post("/v1/classify", json={"image": base64_image(), "labels": LABELS, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def alone(service: Service, question: str, text: str, *, whole: bool = True) -> float:
    """Log-likelihood of one answer after one question, token by token; without its end unless `whole`."""
    request = service.engine.last_request
    assert request is not None
    prompt = service.state.active.checkpoint.prompt
    path = prompt.answer(text)
    return path_likelihood(service, request.image_id, prompt.question(question), path if whole else path[:-1])


def path_likelihood(service: Service, image: str, prompt_ids: list[int], path: list[int]) -> float:
    return math.fsum(
        float(service.engine.log_probabilities(image, (*prompt_ids, *path[:depth]))[token])
        for depth, token in enumerate(path)
    )


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def column(answer: dict[str, Any], name: str) -> list[Any]:
    return [row[name] for row in answer["probabilities"]]


async def test_length_normalised_labels_compare_by_their_mean_per_token(service: Service) -> None:
    plain = await ask(service, question="Which is it?")
    answer = await ask(service, question="Which is it?", length_normalized=True)
    scores = [
        alone(service, "Which is it?", label) / len(service.state.active.checkpoint.prompt.answer(label))
        for label in LABELS
    ]
    assert column(answer, "probability") == pytest.approx(softmax(scores))
    assert answer["label"] == LABELS[scores.index(max(scores))]
    assert answer["label"] != plain["label"] or column(answer, "probability") != column(plain, "probability")
    for name in ("log_likelihood", "label"):
        assert column(answer, name) == column(plain, name)
    assert answer["label_mass"] == plain["label_mass"]


async def test_contextual_calibration_divides_by_the_geometric_mean_on_images_that_show_nothing(
    service: Service,
) -> None:
    plain = await ask(service)
    request = service.engine.last_request
    assert request is not None
    answer = await ask(service, contextual_calibration=True)
    noise = np.random.default_rng(0).integers(0, 256, request.image.shape, dtype=np.uint8)
    prompt = service.state.active.checkpoint.prompt
    question = prompt.question(prompt.classification(LABELS))
    free = []
    for shown in (*(np.full_like(noise, shade) for shade in (0, 128, 255)), noise):
        shown_id = image_id(request.image.shape[1::-1], shown.tobytes())
        free.append([path_likelihood(service, shown_id, question, prompt.answer(label)) for label in LABELS])
    scores = [
        likelihood - sum(image[index] for image in free) / len(free)
        for index, likelihood in enumerate(column(plain, "log_likelihood"))
    ]
    assert column(answer, "probability") == pytest.approx(softmax(scores))
    assert answer["label"] == LABELS[scores.index(max(scores))]
    assert column(answer, "probability") != pytest.approx(column(plain, "probability"), abs=0.01)
    assert column(answer, "log_likelihood") == column(plain, "log_likelihood")
    assert answer["label_mass"] == plain["label_mass"]
    assert answer["provenance"]["contextual_calibration"] is True


async def test_images_that_show_nothing_are_scored_once_for_each_set_of_labels_and_not_in_the_statistics(
    service: Service,
) -> None:
    async def steps(**fields: Any) -> int:
        before = service.engine.started
        await ask(service, **fields)
        return service.engine.started - before

    plain = await steps()
    assert await steps(contextual_calibration=True) == 5 * plain
    assert await steps(contextual_calibration=True) == plain
    other = await steps(labels=LABELS[:2])
    assert await steps(labels=LABELS[:2], contextual_calibration=True) == 5 * other
    stats = (await service.client.get("/v1/router/stats")).json()
    assert stats["requests"] == 5


async def test_requests_that_come_at_once_score_images_that_show_nothing_once(service: Service) -> None:
    async def steps(requests: int) -> int:
        before = service.engine.started
        await asyncio.gather(*(ask(service, contextual_calibration=True) for _ in range(requests)))
        return service.engine.started - before

    assert await steps(3) == 7 * (await steps(1))


def rotated() -> list[list[str]]:
    ordered = sorted(LABELS)
    return [ordered[start:] + ordered[:start] for start in range(len(ordered))]


@pytest.mark.parametrize("question", [None, "What do you see?"])
async def test_choice_averages_the_letters_over_every_order(service: Service, question: str | None) -> None:
    answer = await ask(service, mode="choice", **({"question": question} if question else {}))
    logs: dict[str, list[float]] = {label: [] for label in LABELS}
    winners = []
    for order in rotated():
        options = [f"{letter}. {label}" for letter, label in zip(LETTERS, order, strict=True)]
        text = OWN.replace("{options}", ", ".join(options))
        if question:
            text = "\n".join([question, *options, OWN.splitlines()[1]])
        found = [alone(service, text, letter, whole=False) for letter in LETTERS]
        for label, value in zip(order, found, strict=True):
            logs[label].append(value)
        winners.append(order[found.index(max(found))])
    means = [sum(logs[label]) / len(LABELS) for label in LABELS]
    assert column(answer, "log_likelihood") == pytest.approx(means)
    assert column(answer, "probability") == pytest.approx(softmax(means))
    assert answer["label_mass"] == pytest.approx(sum(math.exp(v) for row in logs.values() for v in row) / len(LABELS))
    assert answer["agreement"] == winners.count(answer["label"]) / len(LABELS)
    assert (answer["mode"], answer["permutations"], answer["calibration"]) == ("choice", 5, None)


async def test_a_model_that_only_likes_letters_and_places_decides_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = service.engine.log_probabilities

    def prefer_early_letters(image_id: str, ids: Any) -> np.ndarray:
        # The same after every prompt: what is in it does not matter to this model.
        scores = np.linspace(0, -500, len(real(image_id, ids)))
        result: np.ndarray = scores - np.log(np.exp(scores).sum())
        return result

    monkeypatch.setattr(service.engine, "log_probabilities", prefer_early_letters)
    every = await ask(service, mode="choice")
    assert column(every, "probability") == pytest.approx([0.2] * 5)
    assert every["entropy"] == pytest.approx(math.log(5))
    assert every["agreement"] < 1
    one = await ask(service, mode="choice", permutations=1)
    assert one["label"] == sorted(LABELS)[0]
    assert one["margin"] > 0.1


async def test_the_order_of_the_labels_changes_nothing_but_the_order(service: Service) -> None:
    for mode in ("choice", "multi_label"):
        one, other = await ask(service, mode=mode), await ask(service, mode=mode, labels=LABELS[::-1])
        assert one["probabilities"] == other["probabilities"][::-1]


async def test_permutations_are_bounded_and_reported(running: ServiceFactory) -> None:
    async with running(max_permutations=3) as service:
        assert (await ask(service, mode="choice"))["permutations"] == 3
        assert (await ask(service, mode="choice", permutations=2))["permutations"] == 2
        assert (await ask(service, mode="choice", labels=["a", "b"], permutations=3))["permutations"] == 2
        body = {"image": base64_image(), "labels": LABELS, "mode": "choice", "permutations": 4}
        check(await service.client.post("/v1/classify", json=body), 422, "invalid_field", "permutations")


async def test_multi_label_asks_about_each_label_on_its_own(service: Service) -> None:
    answer = await ask(service, mode="multi_label")
    assert column(answer, "label") == LABELS
    for row in answer["probabilities"]:
        question = f"Does the picture contain {row['label']}?"
        yes, no = (
            sum(math.exp(alone(service, question, word)) for word in words) for words in (("yes", "Yes"), ("no", "No"))
        )
        p = yes / (yes + no)
        assert row["probability"] == pytest.approx(p)
        assert row["label_mass"] == pytest.approx(yes + no)
        assert row["margin"] == pytest.approx(abs(2 * p - 1))
        assert row["entropy"] == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
        assert row["present"] is (p >= 0.5)
    assert answer["labels"] == [row["label"] for row in answer["probabilities"] if row["present"]]
    assert sum(column(answer, "probability")) != pytest.approx(1)
    assert (answer["mode"], answer["calibration"], answer["abstained"]) == ("multi_label", None, False)


async def test_one_label_is_enough_for_a_yes_or_no(service: Service) -> None:
    (row,) = (await ask(service, mode="multi_label", labels=["CT"]))["probabilities"]
    assert row in (await ask(service, mode="multi_label"))["probabilities"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mode": "choice", "length_normalized": True}, "length_normalized"),
        ({"mode": "multi_label", "length_normalized": True}, "length_normalized"),
        ({"mode": "choice", "contextual_calibration": True}, "contextual_calibration"),
        ({"mode": "multi_label", "contextual_calibration": True}, "contextual_calibration"),
        ({"permutations": 2}, "permutations"),
        ({"mode": "multi_label", "permutations": 2}, "permutations"),
        ({"mode": "choice", "permutations": 0}, "permutations"),
        ({"mode": "multi_label", "question": "Is it there?"}, "question"),
        ({"mode": "choice", "labels": ["CT"]}, "labels"),
        ({"mode": "choice", "labels": [f"label {number}" for number in range(27)]}, "labels"),
        ({"mode": "multi_label", "labels": []}, "labels"),
        ({"mode": "letters"}, "mode"),
        ({"min_confidence": 1.5}, "min_confidence"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_together_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    body = {"image": base64_image(), "labels": LABELS, **fields}
    before = service.engine.started
    check(await service.client.post("/v1/classify", json=body), 422, "invalid_field", param)
    assert service.engine.started == before


async def test_every_modes_engine_steps_are_bounded(running: ServiceFactory) -> None:
    async with running(max_label_steps=8) as service:
        for mode in ("choice", "multi_label"):
            body = {"image": base64_image(), "labels": LABELS, "mode": mode}
            check(await service.client.post("/v1/classify", json=body), 422, "invalid_field", "labels")


async def test_a_multipart_form_takes_the_same_fields(service: Service) -> None:
    file = {"image": ("a.png", image_bytes(), "image/png")}
    for fields in ({"mode": "choice", "permutations": 2}, {"mode": "multi_label"}, {"length_normalized": True}):
        form = {name: str(value).lower() for name, value in fields.items()} | {"labels": LABELS}
        sent = await service.client.post("/v1/classify", data=form, files=file)
        assert sent.status_code == 200, sent.text
        assert sent.json()["probabilities"] == (await ask(service, **fields))["probabilities"]


@pytest.mark.parametrize("mode", ["choice", "multi_label"])
async def test_routing_counts_what_the_prompts_share_once(service: Service, mode: str) -> None:
    answer = await ask(service, mode=mode, include_routing=True)
    prompt = service.state.active.checkpoint.prompt
    if mode == "choice":
        questions = [prompt.choice(order) for order in rotated()]
        answers = [prompt.letter(index) for index in range(len(LABELS))]
    else:
        questions = [prompt.presence(label) for label in LABELS]
        answers = [prompt.answer(word) for word in ("yes", "Yes", "no", "No")]
    prompts = [tuple(prompt.expand(prompt.question(question))) for question in questions]
    asked = {ids[: length + 1] for ids in prompts for length in range(len(ids))}
    inner = {tuple(path[:depth]) for path in answers for depth in range(1, len(path))}
    for layer in answer["routing"]["layers"]:
        assert sum(layer["image"]) == 4
        assert sum(layer["image"]) + sum(layer["question"]) == len(asked)
        assert sum(layer["answer"]) == len(inner) * len(set(prompts))


async def test_the_answers_are_as_documented(service: Service) -> None:
    document = (await service.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    names = {"likelihood": "ClassifyResponse", "choice": "ChoiceResponse", "multi_label": "MultiLabelResponse"}
    for mode, name in names.items():
        answer = await ask(service, mode=mode)
        assert set(answer) == set(schemas[name]["properties"])
        assert answer["mode"] == schemas[name]["properties"]["mode"]["const"]
