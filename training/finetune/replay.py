"""Draw samples against forgetting: from data of earlier training, and from the checkpoint's own answers."""

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import typer

from medmoe.model.files.terminal_safe import MAX_MESSAGE, terminal_safe
from medmoe.training.data.errors import DataError, DatasetError
from medmoe.training.data.image import read_rgb
from medmoe.training.data.leakage.image_digests import ImageDigests
from medmoe.training.data.leakage.near_duplicates import near_duplicates, thumbnail
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Predict
from medmoe.training.finetune.data import read_own_data
from medmoe.training.finetune.split import OwnSplit, augmented

_TRAINED, _MEASURED = 200, 100
"""Maximum number of replayed samples."""
_QUESTIONS = (
    "What modality is used to take this image?",
    "Which part of the body does this image belong to?",
    "What is the main organ in the image?",
    "Does the picture contain lung?",
    "Is this a healthy image?",
    "What is abnormal in the image?",
)
"""Asked of every kind of medical image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Hold samples to train on and samples that measure what is forgotten."""

    train: Sequence[Sample] = ()
    measured: Sequence[Sample] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSamples:
    """Hold all samples of a run: the user's own, and those against forgetting."""

    split: OwnSplit
    replay: Replay
    others: Replay
    """Further questions about the user's own images."""

    @classmethod
    def draw(cls, split: OwnSplit, *, replay: Path | None, domains: Sequence[str], seed: int) -> Self:
        """Add to `split` samples from the data of `replay` and `other_questions`. Raises DatasetError."""
        return cls(
            split=split,
            replay=Replay() if replay is None else draw_replay(replay, split=split, seed=seed),
            others=other_questions(split, domains=domains, seed=seed),
        )

    @property
    def train(self) -> list[Sample]:
        """Return the samples to train on, as they are augmented."""
        return [*augmented(self.split.train), *augmented(self.others.train), *self.replay.train]

    @property
    def measured(self) -> list[Sample]:
        """Return the held-out samples whose right answers are known."""
        return [*self.split.val, *self.split.test, *self.replay.measured]

    def digests(self) -> list[list[str]]:
        """Return id, split, SHA-256 of the words and SHA-256 of the image of each sample that was read.

        Errors show them where two runs differ; they must show neither questions nor answers.
        """
        images = ImageDigests()
        return [
            [
                sample.id,
                sample.split,
                hashlib.sha256(json.dumps([sample.question, sample.answer, sample.labels]).encode()).hexdigest(),
                images.of_bytes(sample.image),
            ]
            for sample in (*self.split.samples, *self.replay.train, *self.replay.measured)
        ]

    def self_labelled(self, *, train: Predict, measured: Predict) -> Self:
        """Return the samples with the checkpoint's own answers to the further questions."""
        answered = Replay(
            train=self_labelled(self.others.train, split=self.split, predict=train),
            measured=self_labelled(self.others.measured, split=self.split, predict=measured),
        )
        return replace(self, others=answered)


def draw_replay(data: Path, *, split: OwnSplit, seed: int) -> Replay:
    """Draw from `data`, in any format of own data: some samples to train on, and images that measure.

    What is nearly an image that `split` holds out is not trained on, and what is nearly a training image measures
    nothing. Raises DatasetError for data that cannot be read or leave nothing to train on.
    """
    rng = random.Random(seed)
    own = read_own_data(data)
    samples = own.samples
    images = sorted({sample.image for sample in samples if sample.split != "train"})
    if not images:
        images = sorted({sample.image for sample in samples})
        images = rng.sample(images, math.ceil(len(images) / 5))
    held_out = set(images)
    train = [replace(sample, split="train") for sample in samples if sample.image not in held_out]
    if not train:
        reason = f"; {len(own.bad)} cannot be used, the first for: {own.bad[0].reason}" if own.bad else ""
        raise DatasetError(f"{data} has no sample that could be replayed in training{reason}")
    kept_apart = [sample.image for sample in split.val + split.test]
    train = _unlike(rng.sample(train, min(_TRAINED, len(train))), images=kept_apart)
    # The user's own samples may have the same ids.
    measured = [replace(s, split="test", id=f"replay {s.id}") for s in samples if s.image in held_out]
    measured = rng.sample(measured, min(_MEASURED, len(measured)))
    trained_images = [sample.image for sample in (*split.train, *train)]
    return Replay(train=train, measured=_unlike(measured, images=trained_images))


def _unlike(samples: Sequence[Sample], *, images: Sequence[Path]) -> list[Sample]:
    """Return the samples whose image is none of `images`, nor nearly one; what is no image is left out and told."""
    others = set(images)
    thumbnails = {}
    for image in dict.fromkeys([*images, *(sample.image for sample in samples)]):
        try:
            thumbnails[image] = thumbnail(read_rgb(image))
        except DataError as error:
            typer.echo(terminal_safe(f"not replayed: {error}", limit=MAX_MESSAGE), err=True)
    like = {later for earlier, later in near_duplicates(thumbnails) if earlier in others}
    return [sample for sample in samples if sample.image in thumbnails.keys() - others - like]


def other_questions(split: OwnSplit, *, domains: Sequence[str], seed: int) -> Replay:
    """Return questions about each train and test image, without answers: its modality among `domains`, and one more.

    A question or a label set that the user's own samples already have is left out.
    """
    asked = {sample.question for sample in split.samples}
    questions = [question for question in _QUESTIONS if question not in asked]
    offered = () if len(domains) < 2 or _taught(split) & {domain.casefold() for domain in domains} else tuple(domains)
    rng = random.Random(seed)

    def asking(samples: Sequence[Sample]) -> Iterator[Sample]:
        for sample in {sample.image: sample for sample in samples}.values():
            blank = replace(sample, labels=(), answer="unknown", answer_type=None, question_type=None)
            if offered:
                yield replace(blank, id=f"modality {sample.id}", question=None, labels=offered, answer=offered[0])
            if questions:
                yield replace(blank, id=f"other {sample.id}", question=rng.choice(questions), answer_type="open")

    return Replay(train=list(asking(split.train)), measured=list(asking(split.test)))


def self_labelled(samples: Sequence[Sample], *, split: OwnSplit, predict: Predict) -> list[Sample]:
    """Return `samples` with the checkpoint's own answers, without those that `split` teaches.

    Source: learning without forgetting (Li and Hoiem, 2016), with answers instead of probabilities.
    """
    taught = _taught(split)
    texts = {prediction.id: prediction.text for prediction in predict(samples) if not prediction.cut}
    kept = {id_: text for id_, text in texts.items() if text.strip() and text.casefold() not in taught}
    return [replace(sample, answer=kept[sample.id]) for sample in samples if sample.id in kept]


def _taught(split: OwnSplit) -> set[str]:
    """Return all answers and labels of the user's own samples, case-folded."""
    return {text.casefold() for sample in split.samples for text in (sample.answer, *sample.labels)}
