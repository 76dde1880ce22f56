"""The linear probe: the optimum of logistic regression, a penalty chosen apart, silence without images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.metrics.scores import Scorer
from medmoe.training.evaluation.predict.linear_probe import (
    logistic_regression,
    out_of_fold_probabilities,
    pooled,
    probe_predictions,
)

LABELS = ("CT", "MRI", "X-ray")


def sample(number: int, split: Split, *, dataset: str = "kinds") -> Sample:
    return Sample(
        id=f"{split}/{number}",
        dataset=dataset,
        image=Path(f"/{split}/{number}.png"),
        split=split,
        answer=LABELS[number % 3],
        labels=LABELS,
    )


def features(image: Path) -> torch.Tensor:
    """Five patches whose first numbers tell the label, among noise."""
    number = int(image.stem)
    noise = torch.randn(5, 6, generator=torch.Generator().manual_seed(number))
    noise[:, number % 3] += 3
    return noise


def test_pooled_features_are_mean_deviation_and_maximum() -> None:
    found = pooled(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    assert found.tolist() == [2.0, 2.0, 1.0, 0.0, 3.0, 2.0]


def test_the_solution_is_an_optimum() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 5, generator=generator)
    targets = torch.randint(0, 3, (40,), generator=generator)
    weights = logistic_regression(inputs, targets, classes=3, penalty=0.1).requires_grad_()
    logits = inputs @ weights[:, :-1].T + weights[:, -1]
    loss = F.cross_entropy(logits, targets) + 0.05 * weights[:, :-1].square().sum()
    loss.backward()
    assert weights.grad is not None
    assert weights.grad.abs().max() < 1e-4


@pytest.mark.parametrize("validation", [12, 0])
def test_a_label_that_the_features_tell_is_found(validation: int) -> None:
    samples = [sample(number, "test") for number in range(100, 130)]
    found = probe_predictions(
        samples,
        train=[sample(number, "train") for number in range(60)],
        val=[sample(number, "val") for number in range(validation)],
        features=features,
    )
    assert sum(found[one.id].text == one.answer for one in samples) >= 28
    probabilities = found[samples[0].id].probabilities
    assert probabilities is not None
    assert set(probabilities) == set(LABELS)
    assert sum(probabilities.values()) == pytest.approx(1)


def test_a_label_without_training_images_is_never_said_and_counts_as_wrong() -> None:
    train = [sample(number, "train") for number in range(60) if number % 3]
    test = [sample(number, "test") for number in range(30)]
    found = probe_predictions(test, train=train, val=(), features=features)
    assert all(prediction.probabilities is not None for prediction in found.values())
    assert {(prediction.probabilities or {})["CT"] for prediction in found.values()} == {0.0}
    scores = Scorer(resamples=10)(test, predictions=found)
    assert scores["accuracy"].value == pytest.approx(2 / 3, abs=0.1)
    assert scores["nll"].value > 5


def test_a_dataset_without_training_images_of_two_labels_has_no_probe() -> None:
    train = [sample(number, "train", dataset="other") for number in range(9)] + [sample(0, "train")]
    assert probe_predictions([sample(1, "test")], train=train, val=(), features=features) == {}


def test_out_of_fold_probabilities_come_from_a_probe_that_has_not_seen_the_image_or_its_near_duplicates(
    tmp_path: Path,
) -> None:
    """Label images by what their features do not tell: only a probe that has seen an image can know its label."""
    samples = []
    for number in range(60):
        # Each image is there twice, nearly the same, and its features are its own.
        pixels = np.random.default_rng(number // 2).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        image = tmp_path / f"{number}.png"
        Image.fromarray(pixels | np.uint8(number % 2)).save(image)
        label = LABELS[(number // 2 * 7 // 3) % 3]
        samples.append(Sample(id=str(number), dataset="kinds", image=image, split="train", answer=label, labels=LABELS))

    def own(image: Path) -> torch.Tensor:
        return torch.eye(30)[[int(image.stem) // 2]]

    found = out_of_fold_probabilities(samples, features=own)
    assert found.keys() == {sample.id for sample in samples}
    for probabilities in found.values():
        assert sum(probabilities.values()) == pytest.approx(1)
    assert np.mean([found[sample.id][sample.answer] for sample in samples]) < 0.45


def test_out_of_fold_probabilities_know_what_the_features_tell(tmp_path: Path) -> None:
    samples = [sample(number, "train") for number in range(60)]
    for one in samples:
        path = tmp_path / one.image.name
        noise = np.random.default_rng(int(one.image.stem)).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    samples = [replace(one, image=tmp_path / one.image.name) for one in samples]
    found = out_of_fold_probabilities(samples, features=features)
    assert np.mean([found[one.id][one.answer] for one in samples]) > 0.8


def in_groups(directory: Path, *, groups: int) -> list[Sample]:
    samples = []
    for number in range(24):
        one = sample(number, "train")
        path = directory / one.image.name
        noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        # A group has every label.
        samples.append(replace(one, image=path, group=f"patient {number % groups}"))
    return samples


def test_out_of_fold_probabilities_of_two_groups_are_of_probes_that_were_fitted(tmp_path: Path) -> None:
    samples = in_groups(tmp_path, groups=2)
    found = out_of_fold_probabilities(samples, features=features)
    assert np.mean([found[one.id][one.answer] for one in samples]) > 0.6


def test_out_of_fold_probabilities_of_one_group_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the 24 images to distil labels for are of one patient"):
        out_of_fold_probabilities(in_groups(tmp_path, groups=1), features=features)


def test_without_a_val_split_the_penalty_is_chosen_on_patients_that_the_fit_has_not_seen() -> None:
    """A patient's six images are alike, and hardly tell the label: the less a probe learns of patients, the better."""

    def of_patients(split: Split) -> list[Sample]:
        return [
            replace(sample(number, split), answer=LABELS[number // 6 % 2], group=f"{split} {number // 6}")
            for number in range(120)
        ]

    def alike(image: Path) -> torch.Tensor:
        number, split = int(image.stem), image.parent.name
        own = torch.randn(1, 60, generator=torch.Generator().manual_seed(number // 6 + 1_000 * (split == "test")))
        own[:, 0] += 1 if number // 6 % 2 else -1
        return own + 0.1 * torch.randn(1, 60, generator=torch.Generator().manual_seed(number + 10_000))

    test = of_patients("test")
    found = probe_predictions(test, train=of_patients("train"), val=(), features=alike)
    assert Scorer(resamples=10)(test, predictions=found)["nll"].value < 0.7


def test_a_penalty_is_chosen_where_all_training_images_are_of_one_patient() -> None:
    train = [replace(sample(number, "train"), group="one") for number in range(60)]
    test = [sample(number, "test") for number in range(30)]
    found = probe_predictions(test, train=train, val=(), features=features)
    assert sum(found[one.id].text == one.answer for one in test) >= 25
