"""Answers of a tiny model: by id, whatever the batches; label likelihoods agree with a plain forward pass."""

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.predictors import ImageFeatures, LocalPredictor
from tests.support.checkpoints.tiny import tiny_config, tiny_model, tiny_tokenizer

LABELS = ("CT", "MRI", "X-ray of the chest")


@pytest.fixture(scope="module")
def model() -> MedMoE:
    return tiny_model(std=0.1)


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return Prompt(tiny_config(), tokenizer=tiny_tokenizer())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{shade}.png" for shade in (10, 120, 240)]
    for path in paths:
        Image.new("L", (40, 24), int(path.stem)).save(path)
    return paths


def predictor(model: MedMoE, prompt: Prompt, **options: Any) -> LocalPredictor:
    features = ImageFeatures(model, processor=ImageProcessor.from_config(model.config))
    return LocalPredictor(model, prompt=prompt, features=features, **({"max_tokens": 5} | options))


def asked(images: list[Path]) -> list[Sample]:
    questions = ["What?", "What modality is used to take this image?", "Is there a fracture?"]
    return [
        Sample(id=f"q{i}", dataset="d", image=image, split="test", question=question, answer="CT")
        for i, (image, question) in enumerate(zip(images, questions, strict=True))
    ]


def shown(images: list[Path]) -> list[Sample]:
    return [
        Sample(id=f"c{i}", dataset="d", image=image, split="test", answer="CT", labels=LABELS)
        for i, image in enumerate(images)
    ]


@pytest.mark.parametrize("batch_size", [2, 8])
def test_batches_do_not_change_predictions(model: MedMoE, prompt: Prompt, images: list[Path], batch_size: int) -> None:
    samples = asked(images) + shown(images)
    alone = {found.id: found for found in predictor(model, prompt, batch_size=1).predict(samples)}
    together = {found.id: found for found in predictor(model, prompt, batch_size=batch_size).predict(samples)}
    assert list(alone) == list(together) == [sample.id for sample in samples]
    for id_, found in alone.items():
        assert found.text == together[id_].text
        assert found.routing == together[id_].routing
        assert found.confidence == pytest.approx(together[id_].confidence, rel=1e-4)
    assert {alone[sample.id].text for sample in shown(images)} <= set(LABELS)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_answers_that_share_an_image_are_those_of_the_plain_decoder(
    model: MedMoE, prompt: Prompt, images: list[Path], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images in turn, questions of different lengths, answers of which some end early."""
    questions = ["What?", "Is there a fracture?", "What modality is used to take this image?", "Which lung?"]
    samples = [
        replace(sample, id=f"{number}/{sample.id}", question=question)
        for number, question in enumerate(questions)
        for sample in asked(images)
    ]
    features = ImageFeatures(model, processor=ImageProcessor.from_config(model.config))

    def plain() -> dict[str, list[int]]:
        prompts = {sample.id: prompt.expand(prompt.question(sample.question or "")) for sample in samples}
        return {
            sample.id: model.generate([prompts[sample.id]], features(sample.image)[None], max_tokens=12)[0]
            for sample in samples
        }

    # Random weights never say the end: what they say now and then becomes it.
    said = plain().values()
    often = {token: {ids.index(token) for ids in said if token in ids} for token in {*chain.from_iterable(said)}}
    text = model.config.text_config.model_copy(update={"eos_token_id": max(often, key=lambda token: len(often[token]))})
    monkeypatch.setattr(model, "config", model.config.model_copy(update={"text_config": text}))
    expected = plain()
    assert len({len(ids) for ids in expected.values()}) > 1
    found = predictor(model, prompt, batch_size=batch_size, max_tokens=12).predict(samples)
    assert {one.id: one.text for one in found} == {id_: prompt.decode(ids) for id_, ids in expected.items()}


def test_an_image_is_read_once_for_all_its_questions(model: MedMoE, prompt: Prompt, images: list[Path]) -> None:
    seen: list[int] = []
    hook = model.projector.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    several = [replace(sample, id=f"{number}/{sample.id}") for number in range(3) for sample in asked(images)]
    try:
        list(predictor(model, prompt, batch_size=6).predict(several))
    finally:
        hook.remove()
    assert seen == [2, 1]


def test_confidence_is_the_probability_of_the_whole_answer(model: MedMoE, prompt: Prompt, images: list[Path]) -> None:
    features = ImageFeatures(model, processor=ImageProcessor.from_config(model.config))
    for sample, found in zip(asked(images), predictor(model, prompt).predict(asked(images)), strict=True):
        before = prompt.expand(prompt.question(sample.question or ""))
        feature = features(sample.image)[None]
        (answer,) = model.generate([before], feature, max_tokens=5)
        ids = torch.tensor([before + answer])
        with torch.no_grad():
            hidden = model.hidden_states(ids, torch.ones_like(ids), feature)
            log_p = model.language_model.lm_head(hidden)[0].log_softmax(-1)
        expected = sum(float(log_p[len(before) - 1 + place, token]) for place, token in enumerate(answer))
        assert found.confidence == pytest.approx(math.exp(expected), rel=1e-3)
        assert found.cut == (answer[-1] != model.config.text_config.eos_token_id)


def test_routing_counts_every_prompt_token_once_in_each_moe_layer(
    model: MedMoE, prompt: Prompt, images: list[Path]
) -> None:
    samples = asked(images) + shown(images)
    for sample, found in zip(samples, predictor(model, prompt).predict(samples), strict=True):
        question = sample.question or prompt.classification(sample.labels)
        assert found.routing is not None
        assert found.routing.expert_domains == model.config.expert_domains
        tokens = len(prompt.expand(prompt.question(question)))
        assert {layer: sum(counts) for layer, counts in found.routing.layers.items()} == {0: tokens, 2: tokens}
        assert {layer: sum(counts) for layer, counts in found.routing.image.items()} == {0: 4, 2: 4}
        assert all(
            0 <= image <= all_
            for layer, counts in found.routing.layers.items()
            for image, all_ in zip(found.routing.image[layer], counts, strict=True)
        )


def test_labels_do_not_cost_a_pass_over_the_image_each(model: MedMoE, prompt: Prompt, images: list[Path]) -> None:
    seen: list[int] = []
    hook = model.projector.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    twice = [*shown(images), *(replace(sample, id=f"{sample.id}b") for sample in shown(images))]
    try:
        list(predictor(model, prompt, batch_size=8).predict(twice))
    finally:
        hook.remove()
    assert seen == [len(images)]


def test_label_likelihood_is_that_of_every_token_and_the_end(model: MedMoE, prompt: Prompt, images: list[Path]) -> None:
    sample = shown(images)[1]
    (found,) = predictor(model, prompt, batch_size=2).predict([sample])
    expected = {}
    with Image.open(sample.image) as image:
        pixels = torch.from_numpy(ImageProcessor.from_config(model.config)(image))[None]
    question = prompt.expand(prompt.question(prompt.classification(LABELS)))
    for label in LABELS:
        answer = prompt.answer(label)
        ids = torch.tensor([question + answer])
        with torch.no_grad():
            log_p = model(ids, torch.ones_like(ids), pixels)[0].log_softmax(-1)
        log_likelihood = sum(float(log_p[len(question) - 1 + place, token]) for place, token in enumerate(answer))
        expected[label] = math.exp(log_likelihood)
    total = sum(expected.values())
    shares = {label: likelihood / total for label, likelihood in expected.items()}
    assert found.probabilities == pytest.approx(shares, abs=1e-3)


def test_label_probabilities_sum_to_one(model: MedMoE, prompt: Prompt, images: list[Path]) -> None:
    for found in predictor(model, prompt).predict(shown(images)):
        assert found.probabilities is not None
        assert tuple(found.probabilities) == LABELS
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert found.confidence == max(found.probabilities.values())


def test_prompt_without_room_for_an_answer_names_its_sample(model: MedMoE, prompt: Prompt, images: list[Path]) -> None:
    with pytest.raises(DataError, match="q0"):
        list(predictor(model, prompt, max_tokens=512).predict(asked(images)))


def test_file_that_is_no_image_is_named(model: MedMoE, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png"):
        ImageFeatures(model, processor=ImageProcessor.from_config(model.config))(path)
