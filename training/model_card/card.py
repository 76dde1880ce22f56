"""Write the README.md of a finished checkpoint.

Every figure in it was computed by this run; the command that repeats the evaluation stands beside them. Nothing in it
names the machine or the hour: the same run gives the same card.
"""

import os
import platform
import shlex
from dataclasses import asdict
from pathlib import Path

import torch

from medmoe.model.files.calibration import Calibration
from medmoe.model.files.weight_files import WeightFiles
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.leakage.trained_images import manifest_images
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.evaluation.evaluator import evaluate_predictor
from medmoe.training.evaluation.predict.linear_probe import tower_features
from medmoe.training.evaluation.predict.predictors import LocalPredictor, with_progress
from medmoe.training.evaluation.provenance import CheckpointIdentity, commit, provenance
from medmoe.training.evaluation.report.markdown import markdown
from medmoe.training.evaluation.report.results import write_results
from medmoe.training.model_card import sections
from medmoe.training.model_card.opening import opening
from medmoe.training.model_card.unseen_images import unseen_images
from medmoe.training.pipeline import Run
from medmoe.training.run_data import MANIFEST_FILE
from medmoe.training.run_directory import REPORT_FILE

EVALUATION_FOLDER = "evaluation"
_CARD = """\
{licence}# {name}

Research software, not a medical device. Not for diagnosis, triage or treatment. Its answers are often wrong, also
when its probabilities are high.

{opening}

## What it is

{architecture}
- weights: {megabytes:.1f} MB, SHA-256 `{digest}`

## What it saw

Training splits of:

{data}

{terms}{left_out}{manifest}

{origins} All images are English-language teaching or benchmark material; no population is represented fairly.

## How it was trained

{command}{recipe}

{stages}

Times are of {machine}. {router}

## How sure it is

{calibration}

## What it scores

    {evaluation}

{table}{unseen}"""


def write_model_card(
    run: Run,
    *,
    data: Path,
    command: str | None = None,
    licence: str | None = None,
) -> None:
    """Evaluate the finished checkpoint as it lies on disk and write its README.md, whole or not at all.

    The full report, with every sample and the plots, goes to the folder `evaluation` of the run. What is calibrated
    later, or put beside as `unseen_images` says, enters the card when it is written again.

    `command` is what a reader types to repeat the run. `licence` is the SPDX name of the weights' own; without one the
    card states none. Raises what reading the data and the checkpoint raises.
    """
    directory, checkpoint = run.checkpoint.parent, run.checkpoint
    identity = CheckpointIdentity.of(checkpoint)
    calibration = Calibration.of_weights(checkpoint, weights_sha256=identity.weights_sha256)
    manifest = directory / MANIFEST_FILE
    # A base was trained on images that this run's manifest does not hold.
    known = manifest.exists() and "base" not in run.report.get("origins", {})
    names = tuple(dict.fromkeys(run.config.evaluation))
    read = EvaluationData.read(
        data, names, image_directory=directory / "images", trained_on=manifest_images(manifest) if known else None
    )
    predictor = LocalPredictor.from_checkpoint(checkpoint)
    samples = (*read.samples, *read.train, *read.val)
    report = evaluate_predictor(
        read,
        with_progress(predictor.predict),
        blank_images=True,
        calibration=calibration,
        tower=tower_features(checkpoint, run.features_folder, samples=samples),
    )
    write_results(
        report,
        directory / EVALUATION_FOLDER,
        provenance=provenance(answered_by={"checkpoint": checkpoint.name, **asdict(identity)}, data=read, settings={}),
        training_report=directory / REPORT_FILE,
    )
    config = run.config
    card = _CARD.format(
        name=config.name,
        licence=sections.front_matter(licence),
        opening=opening(report),
        architecture=sections.architecture(config.architecture),
        megabytes=WeightFiles.of(checkpoint).nbytes / 1e6,
        digest=identity.weights_sha256,
        data=sections.datasets(config, run.report),
        terms=sections.terms(licence),
        left_out=sections.left_out(config, run.report),
        manifest=sections.manifest_facts(manifest),
        origins=sections.origins(config, run.report),
        command="" if command is None else f"    {command}\n\n",
        recipe=sections.recipe(config, commit=commit()),
        stages=sections.stage_table(config, run.report),
        machine=_machine(),
        router=sections.router(config, run.report),
        calibration=sections.calibration_facts(calibration),
        evaluation=_evaluation(names, manifest=known),
        table=markdown(report, question_types=False),
        unseen="\n" + unseen if (unseen := unseen_images(directory)) else "",
    )
    write_atomically(checkpoint / "README.md", card.rstrip() + "\n")


def _evaluation(names: tuple[str, ...], *, manifest: bool) -> str:
    datasets = " ".join(f"--dataset {shlex.quote(name)}" for name in names)
    told = " --manifest RUN/manifest.json" if manifest else ""
    return f"medmoe eval CHECKPOINT --data DATA {datasets} --blank-images --probe{told}"


def _machine() -> str:
    """Return the processor or accelerators of this machine, without its name."""
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return f"{count} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
