"""What an image is said to be, when its records disagree or are finer than the router's experts."""

from pathlib import Path
from typing import Any

import pytest

from medmoe.training.config import DataConfig
from medmoe.training.data.modality import denies_modality, modality_samples
from medmoe.training.data.sample import Sample

DOMAINS = ("CT", "MRI", "X-ray", "pathology")


def question(text: str, answer: str, *, modality: str | None, image: str = "a") -> Sample:
    return Sample(
        id=f"{image}/{text}",
        dataset="d",
        image=Path(f"/{image}.png"),
        split="train",
        question=text,
        answer=answer,
        modality=modality,
    )


@pytest.mark.parametrize(
    ("text", "answer", "modality", "denied"),
    [
        ("is this a ct scan?", "no", "CT", True),
        ("Is this an MRI image?", "No", "MRI", True),
        ("Is this image taken via X-Ray?", "no", "X-ray", True),
        ("is this a ct scan?", "yes", "CT", False),
        ("is this a ct scan?", "no", "MRI", False),
        ("is this a noncontrast ct?", "no", "CT", False),
        ("is this a t1 weighted mri?", "no", "MRI", False),
        ("Is the chest x-ray normal?", "no", "X-ray", False),
        ("is this a ct scan?", "no", None, False),
    ],
)
def test_only_a_no_to_the_recorded_modality_itself_denies_it(
    text: str, answer: str, modality: str | None, denied: bool
) -> None:
    assert denies_modality(question(text, answer, modality=modality)) == denied


def test_an_image_that_is_denied_anywhere_is_left_out() -> None:
    samples = [
        question("Where is it?", "head", modality="CT"),
        question("is this a ct scan?", "no", modality="CT"),
        question("is this a ct scan?", "yes", modality="CT", image="b"),
    ]
    found = modality_samples(samples, domains=DOMAINS, seed=1)
    assert [sample.image.name for sample in found] == ["b.png"]


def test_a_dataset_can_be_of_one_modality_whatever_its_records_say() -> None:
    samples = [question("What?", "cells", modality=modality, image=str(modality)) for modality in ("microscopy", None)]
    assert modality_samples(samples, domains=DOMAINS, seed=1) == []
    renamed = modality_samples(samples, domains=DOMAINS, seed=1, modality="pathology")
    assert [sample.answer for sample in renamed] == ["pathology"] * 2


@pytest.mark.parametrize("fields", [{"source": "vqa", "modality": "CT"}, {"source": "vqa", "views": 0}])
def test_an_entry_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="d: "):
        DataConfig(dataset="d", **fields)
