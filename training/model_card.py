"""The README.md of a finished checkpoint: what it is, what it saw, what it scores, and what it is not for.

Every figure in it was computed by this run; the command that repeats the evaluation stands beside them.
"""

import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from medmoe.model.calibration import CALIBRATION_FILE
from medmoe.model.checkpoint.io import expected_tensors
from medmoe.model.config import WEIGHTS_FILE
from medmoe.model.file_digest import file_sha256
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import DataConfig, RunConfig, StageConfig
from medmoe.training.data.licences import LICENCES, Licence
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.evaluation.evaluator import evaluate_predictor
from medmoe.training.evaluation.markdown import markdown
from medmoe.training.evaluation.predictors import LocalPredictor
from medmoe.training.pipeline import Run

_CARD = """\
# {name}

Research software, not a medical device. Not for diagnosis, triage or treatment. Its answers are often wrong, also
when its probabilities are high; {calibration}. It knows short English questions on single images of the
kinds listed below, and no others.

## What it is

{architecture}
- weights: {megabytes:.1f} MB, SHA-256 `{digest}`

## What it saw

Training splits of:

{data}

{tower} All images are English-language teaching or benchmark material; no population is represented fairly.

## How it was trained

{command}

{stages}

Times are of {machine}. The router is a linear layer on pooled hidden states, trained on {router_images} images. On
{held_out_images} held-out images it names the modality of {router_accuracy:.1f} % ({router_domains}).

## What it scores

    python -m medmoe.training.evaluation CHECKPOINT --data DATA {evaluation}

{table}
"""


def write_model_card(
    run: Run, *, data: Path, command: str | None = None, origin: str | None = None, machine: str | None = None
) -> None:
    """Evaluate the finished checkpoint as it lies on disk and write its README.md, whole or not at all.

    `command` is what a reader types to repeat the run; without it the card gives the recipe's digest. `origin` says in
    whole sentences where the weights come from that were not trained here. `machine` is where the times were measured:
    by default this one, which is right when the run was not moved.
    """
    evaluation = EvaluationData.read(data, run.config.evaluation)
    predictor = LocalPredictor.from_checkpoint(run.checkpoint)
    table = markdown(evaluate_predictor(evaluation, predictor.predict)).rstrip()
    card = _card(
        run.config,
        run.report,
        checkpoint=run.checkpoint,
        table=table,
        command=_command(run.config) if command is None else f"    {command}",
        tower=" ".join(filter(None, [_tower(run.config), origin])),
        machine=machine or _machine(),
    )
    write_atomically(run.checkpoint / "README.md", card)


def _card(config: RunConfig, report: dict[str, Any], *, checkpoint: Path, **texts: str) -> str:
    weights = checkpoint / WEIGHTS_FILE
    router = report["router"]
    held_out = router["held_out"]
    return _CARD.format(
        name=config.name,
        architecture=_architecture(config),
        megabytes=weights.stat().st_size / 1e6,
        digest=file_sha256(weights),
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
        calibration=(
            f"{CALIBRATION_FILE} says how often they come true"
            if (checkpoint / CALIBRATION_FILE).exists()
            else "nothing here is calibrated"
        ),
        **texts,
    )


def _command(config: RunConfig) -> str:
    digest = hashlib.sha256(config.to_json().encode()).hexdigest()
    return f"The recipe is the run's `recipe.json`, SHA-256 `{digest}`."


def _tower(config: RunConfig) -> str:
    names = [name for name in expected_tensors(config.architecture) if name.startswith("vision_tower.")]
    trained = [
        stage.name
        for stage in _gradient_stages(config)
        if any(re.match(pattern, name) for pattern in stage.trainable for name in names)
    ]
    fate = f"was trained in {' and '.join(trained)}" if trained else "stayed frozen"
    return f"The vision tower {fate}."


def _machine() -> str:
    """Processor or accelerators of this machine, without its name."""
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return f"{count} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _gradient_stages(config: RunConfig) -> tuple[StageConfig, ...]:
    return (config.alignment, config.instruction_tuning, config.moe_tuning)


def _architecture(config: RunConfig) -> str:
    whole = config.architecture
    text, vision = whole.text_config, whole.vision_config
    return "\n".join(
        [
            f"- vision tower: {vision.model_type}, {vision.num_hidden_layers} blocks, {vision.image_size} px",
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
    for stage in _gradient_stages(config):
        log = report[stage.name]
        cells = [stage.name, _entries(stage.data), log["samples"], log["steps"], log["trainable_parameters"]]
        cells += [f"{log['first_loss']:.3f}", f"{log['last_loss']:.3f}", f"{log['seconds'] / 60:.1f}"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def _entries(entries: tuple[DataConfig, ...]) -> str:
    return ", ".join(f"{entry.dataset} {entry.source}" for entry in entries)
