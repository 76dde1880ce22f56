"""The linear probe: the optimum of logistic regression, a penalty chosen apart, silence without images."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from medmoe.training.config import Split
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.linear_probe import logistic_regression, pooled, probe_predictions

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


def test_a_dataset_without_training_images_of_two_labels_has_no_probe() -> None:
    train = [sample(number, "train", dataset="other") for number in range(9)] + [sample(0, "train")]
    assert probe_predictions([sample(1, "test")], train=train, val=(), features=features) == {}
