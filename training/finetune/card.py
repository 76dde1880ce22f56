"""Write the README.md of a finetuned checkpoint."""

from medmoe.model.files.calibration import Calibration
from medmoe.model.files.licence import UNKNOWN_LICENCE
from medmoe.model.lora.adapter_config import BaseModelIdentity
from medmoe.training.finetune.split import OwnSplit
from medmoe.training.model_card.sections import calibration_facts, front_matter

_CARD = """\
{front_matter}# {name}

Research software, not a medical device. Not for diagnosis, triage or treatment.

{base} (weights SHA-256 `{digest}`), finetuned on images of one's own with `medmoe finetune`.

## What it saw

{train} training samples of {images} images; {val} samples chose the epoch and {test} measured the result. Images that
nearly repeat one another, or share a group, are in one split. {labels}The data's licence is its owner's to state; the
base checkpoint's licence, which holds for what is made of it, is: {licence}.

## How it was trained

Method `{method}`, {epochs:.3g} epochs, seed {seed}{replay}. Routers and vision tower are those of the base checkpoint.

## What it scores

{table}

95 % intervals over images, or over the groups that share a split; a perfect AUC or recall has none, and of fewer than
five groups accuracies alone have one. The test images come from the same source as the training images: expect less on
images from elsewhere. Answers to other questions get worse{forgetting}

## How sure it is

{calibration}

## Which images it does not know

{reference}
"""


def finetuned_card(
    split: OwnSplit,
    *,
    name: str,
    base: BaseModelIdentity,
    licence: str,
    method: str,
    epochs: float,
    seed: int,
    replayed: int,
    table: str,
    calibration: Calibration | None,
    reference: str,
) -> str:
    """Return the card's text; `table` compares the scores before and after, `reference` tells what is flagged."""
    labels = sorted({label for sample in split.samples for label in sample.labels})
    return _CARD.format(
        front_matter=front_matter(None if licence == UNKNOWN_LICENCE else licence),
        name=name,
        base=base.name,
        digest=base.weights_sha256,
        train=len(split.train),
        images=len({sample.image for sample in split.train}),
        val=len(split.val),
        test=len(split.test),
        labels=f"Labels: {', '.join(labels)}. " if labels else "",
        licence=licence,
        method=method,
        epochs=epochs,
        seed=seed,
        replay=f", with {replayed} replayed samples of other data" if replayed else "",
        table=table,
        forgetting="." if replayed else ", less so with `--replay`.",
        calibration=calibration_facts(calibration),
        reference=reference,
    )
