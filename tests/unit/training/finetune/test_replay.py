"""What `finetune` asks the checkpoint about other things, and which of its answers it keeps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmoe.training.data.errors import DatasetError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Predict, Prediction
from medmoe.training.finetune.data import read_own_data
from medmoe.training.finetune.replay import draw_replay, other_questions, self_labelled
from medmoe.training.finetune.split import OwnSplit, split_own_data

DOMAINS = ("CT", "MRI", "X-ray")


def own(*labels: str, images: int = 4, question: str | None = None) -> OwnSplit:
    """Images of each label in turn; the last one is the test split."""
    samples = [
        Sample(
            id=str(number),
            dataset="own",
            image=Path(f"/own/{number}.png"),
            split="train",
            question=question,
            answer=labels[number % len(labels)],
            labels=() if question else labels,
        )
        for number in range(images)
    ]
    return OwnSplit(
        form="", train=tuple(samples[:-1]), val=(), test=tuple(samples[-1:]), bad=(), repeats=0, near_duplicates=0
    )


def answering(text: str, *, cut: bool = False) -> Predict:
    def predict(samples: Sequence[Sample]) -> Iterator[Prediction]:
        for sample in samples:
            yield Prediction(id=sample.id, text=sample.labels[1] if sample.labels else text, cut=cut)

    return predict


def test_each_image_is_asked_for_its_modality_and_one_more_question() -> None:
    found = other_questions(own("axial", "sagittal"), domains=DOMAINS, seed=0)
    assert [sample.image.stem for sample in found.train] == ["0", "0", "1", "1", "2", "2"]
    assert [sample.labels for sample in found.train[::2]] == [DOMAINS] * 3
    assert all(sample.kind == "vqa" for sample in found.train[1::2])
    assert [sample.image.stem for sample in found.measured] == ["3", "3"]
    assert len({sample.id for sample in [*found.train, *found.measured]}) == 8


def test_what_the_own_images_teach_is_not_asked() -> None:
    assert not any(sample.labels for sample in other_questions(own("mri", "ct"), domains=DOMAINS, seed=0).train)
    asked = "What is the main organ in the image?"
    found = other_questions(own("lung", images=60, question=asked), domains=DOMAINS, seed=0)
    assert asked not in {sample.question for sample in found.train}


def test_the_checkpoint_s_own_answers_are_learnt_but_no_label_of_the_user_s() -> None:
    split = own("axial", "sagittal")
    asked = other_questions(split, domains=DOMAINS, seed=0).train
    kept = self_labelled(asked, split=split, predict=answering("the chest"))
    assert {sample.answer for sample in kept if sample.labels} == {"MRI"}
    assert {sample.answer for sample in kept if not sample.labels} == {"the chest"}
    for left_out in (answering("Axial"), answering(" ")):
        assert all(sample.labels for sample in self_labelled(asked, split=split, predict=left_out))
    assert self_labelled(asked, split=split, predict=answering("the chest", cut=True)) == []


def test_data_that_leave_nothing_to_replay_are_refused(tmp_path: Path) -> None:
    for label in ("CT", "MRI"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DatasetError, match=r"no sample that could be replayed.*; 2 cannot be used.*medmoe render"):
        draw_replay(tmp_path, split=own("axial", "sagittal"), seed=0)


def test_an_image_of_the_replayed_data_that_cannot_be_read_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("own", "earlier")):
        for number in range(20):
            pixels = np.random.default_rng([seed, number]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            path = tmp_path / name / ("normal", "mass")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "earlier" / "mass" / "broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "earlier" / "normal" / "broken.png").write_bytes(b"\x89PNG")
    replay = draw_replay(tmp_path / "earlier", split=split_own_data(read_own_data(tmp_path / "own")), seed=0)
    assert len(replay.train) + len(replay.measured) == 20
    assert capsys.readouterr().err.count("broken.png is not an image") == 2


def test_nothing_that_measures_the_own_images_is_replayed_and_nothing_trained_measures(tmp_path: Path) -> None:
    for folder, first in (("own", 0), ("earlier", 10)):
        for number in range(first, first + 20):
            path = tmp_path / folder / ("CT" if number % 2 else "MRI") / f"{folder} {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 250, (16, 16, 3)) + (folder == "earlier")
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    split = split_own_data(read_own_data(tmp_path / "own"))
    found = draw_replay(tmp_path / "earlier", split=split, seed=0)

    def numbers(samples: Sequence[Sample]) -> set[str]:
        return {sample.image.stem.split()[1] for sample in samples}

    assert numbers(found.train).isdisjoint(numbers(split.val + split.test))
    assert numbers(found.measured).isdisjoint(numbers(split.train) | numbers(found.train))
    assert numbers(found.train) & numbers(split.train)
    assert {str(number) for number in range(20, 30)} <= numbers(found.train) | numbers(found.measured)
