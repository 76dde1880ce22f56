"""`medmoe eval CHECKPOINT --data DIR --dataset NAME`: score a checkpoint or a service.

With `--url` instead of CHECKPOINT a running service is asked, and what it really serves is measured.
Prints the Markdown tables to standard output; progress and everything about the data goes to standard error.
"""

import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmoe.client.commands.request_options import refuse_given
from medmoe.model.cli import single_command, with_headings
from medmoe.model.files.routing_reference import ROUTING_REFERENCE_FILE
from medmoe.model.files.terminal_safe import listed
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import MAX_SEED, Split
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.disk_space import require_writable, require_writable_checkpoint
from medmoe.training.evaluation.report.plots import MISSING, can_draw

if TYPE_CHECKING:
    from medmoe.training.data.batches.collator import Features
    from medmoe.training.evaluation.evaluation_data import EvaluationData
    from medmoe.training.evaluation.provenance import CheckpointIdentity
    from medmoe.training.evaluation.report.report import Report


@with_headings(
    {
        "Service in place of CHECKPOINT": "url concurrency token_file",
        "Samples": "label split limit seed image_directory manifest",
        "Further measurements": "blank_images probe features calibrated held_out_wording contextual_calibration",
        "Results": "output training_report routing_reference",
        "Computation": "device batch_size max_tokens",
    }
)
def evaluate(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    dataset: Annotated[
        list[str],
        typer.Option(
            help="Folder or file below --data, in any form that training reads (bccd_cells/vqa_records.jsonl)."
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory, computed in this process.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Label to choose among, once for each; for tables and label folders with images of only some of them."
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Address, such as http://127.0.0.1:8000.")] = None,
    split: Annotated[Split, typer.Option(help="Split to answer; the baselines always come from train.")] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of samples of each dataset, drawn with --seed.")
    ] = None,
    blank_images: Annotated[
        bool, typer.Option("--blank-images", help="Ask everything again about a grey square, as a baseline.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="A linear probe on CHECKPOINT's own tower beside its answers about labels.")
    ] = False,
    features: Annotated[
        Path | None, typer.Option(help="Folder of tower features, shared with training runs; for --probe.")
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated",
            help="Score probabilities as calibration.json calibrates them; by default both are reported.",
        ),
    ] = False,
    routing_reference: Annotated[
        bool,
        typer.Option(
            "--routing-reference",
            help="Write routing_reference.json into CHECKPOINT: a service measures drift from it.",
        ),
    ] = False,
    held_out_wording: Annotated[
        int | None,
        typer.Option(min=1, max=3, help="Ask about labels in words that training never used: 1, 2 or 3."),
    ] = None,
    contextual_calibration: Annotated[
        bool,
        typer.Option(
            "--contextual-calibration",
            help="Divide the likelihoods of labels by those on images that show nothing, as /v1/classify can.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for report.json (every sample too), report.md and figures.")
    ] = None,
    training_report: Annotated[
        Path | None, typer.Option(help="report.json of the training run, for its loss curves in --output.")
    ] = None,
    image_directory: Annotated[
        Path | None, typer.Option(help="Folder for the images of MedMNIST arrays; by default beside the file.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest.json of the training run, in place of trained_images.json."),
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device; a GPU is many times faster.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time; memory grows with it.")] = 16,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    token_file: Annotated[Path | None, typer.Option(help="File with a bearer token.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens; a longer one is cut.")] = 32,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the samples that --limit draws and of the bootstrap.")
    ] = 0,
) -> None:
    """Answer a split of each dataset and print scores, intervals, baselines and leaks.

    Research software, not a medical device.
    """
    if (checkpoint is None) == (url is None):
        raise typer.BadParameter("give either CHECKPOINT or --url")
    if contextual_calibration and calibrated:
        raise typer.BadParameter("--calibrated and --contextual-calibration exclude each other")
    if checkpoint is None:
        refuse_given(context, "calibrated routing_reference probe features device batch_size", "with --url")
    else:
        refuse_given(context, "concurrency token_file", "with CHECKPOINT")
    if not probe:
        refuse_given(context, "features", "without --probe")
    if output is None:
        refuse_given(context, "training_report", "without --output")

    # Imported here because torch takes seconds.
    from medmoe.training.evaluation.answerer import checkpoint_answerer, service_answerer
    from medmoe.training.evaluation.evaluation_data import EvaluationData
    from medmoe.training.evaluation.evaluator import evaluate_predictor
    from medmoe.training.evaluation.metrics.scores import Scorer
    from medmoe.training.evaluation.predict.linear_probe import unprobed
    from medmoe.training.evaluation.predict.predictors import with_progress
    from medmoe.training.evaluation.provenance import CheckpointIdentity, provenance
    from medmoe.training.evaluation.report.coverage import coverage_table, coverages
    from medmoe.training.evaluation.report.markdown import markdown
    from medmoe.training.evaluation.report.results import read_losses, write_results

    if output is not None and not can_draw():
        typer.echo(MISSING, err=True)
    # Whatever can be wrong without a model is found before the model is asked.
    if output is not None:
        require_writable(output)
    if training_report is not None:
        read_losses(training_report)
    identity = None if checkpoint is None else CheckpointIdentity.of(checkpoint)
    if routing_reference and checkpoint is not None:
        require_writable_checkpoint(checkpoint)
    read = EvaluationData.read(
        data,
        dataset,
        split=split,
        limit=limit,
        seed=seed,
        image_directory=image_directory,
        trained_on=_trained_on(checkpoint, identity, manifest=manifest),
        labels=tuple(label or ()),
    )
    if held_out_wording is not None:
        read = read.paraphrased(held_out_wording)
    for problem in read.problems:
        typer.echo(problem, err=True)
    if checkpoint is not None:
        read.check_images()
    if probe:
        for name in unprobed(read.samples, train=read.train):
            typer.echo(f"{name}: no probe, which needs a train split with two labels or more", err=True)
    source = (
        checkpoint_answerer(
            checkpoint,
            identity,
            calibrated=calibrated,
            contextual_calibration=contextual_calibration,
            device=device,
            batch_size=batch_size,
            max_tokens=max_tokens,
        )
        if checkpoint is not None and identity is not None
        else service_answerer(
            str(url),
            token_file=token_file,
            concurrency=concurrency,
            max_tokens=max_tokens,
            contextual_calibration=contextual_calibration,
        )
    )
    with (
        source as answerer,
        _tower(checkpoint if probe else None, read, features=features, device=device) as tower,
    ):
        if answerer.calibration is not None:
            for offered, known in read.wider_label_sets(answerer.calibration.known_label_sets).items():
                typer.echo(
                    f"warning: the choice is among {listed(list(offered))} alone, and the checkpoint is calibrated for "
                    f"{listed(list(known))}; --label for each of these asks what a service is asked, which is harder",
                    err=True,
                )
        report = evaluate_predictor(
            read,
            with_progress(answerer.predict),
            blank_images=blank_images,
            calibration=answerer.calibration,
            apply=calibrated,
            tower=tower,
            scorer=Scorer(seed=seed),
        )
    settings = {
        "max_tokens": max_tokens,
        "seed": seed,
        "limit": limit,
        "labels": label,
        "calibrated": calibrated,
        "held_out_wording": held_out_wording,
        "contextual_calibration": contextual_calibration,
    }
    facts = provenance(answered_by=answerer.identity, data=read, settings=settings)
    if output is not None:
        write_results(report, output, provenance=facts, training_report=training_report)
    if routing_reference and checkpoint is not None:
        _write_routing_reference(checkpoint, report, identity=answerer.identity, datasets=dataset, split=split)
    typer.echo(markdown(report))
    if answerer.calibration is not None and not calibrated:
        covered = coverages(
            report.outcomes,
            answerer.calibration,
            clusters={sample.id: sample.cluster for sample in read.samples},
        )
        typer.echo(coverage_table(covered))
    if routing_reference and checkpoint is not None:
        typer.echo(f"wrote {checkpoint / ROUTING_REFERENCE_FILE}")
    typer.echo(
        f"{sum(section.in_train for section in report.sections)} of {len(read.samples)} samples share an image with "
        "train."
    )


def _write_routing_reference(
    checkpoint: Path, report: "Report", *, identity: dict[str, Any], datasets: list[str], split: Split
) -> None:
    from medmoe.training.evaluation.report.routing_table import routing_reference

    reference = routing_reference(
        report.routing,
        datasets=datasets,
        split=split,
        weights_sha256=identity["weights_sha256"],
        adapter_sha256=identity["adapter_sha256"],
    )
    write_atomically(checkpoint / ROUTING_REFERENCE_FILE, reference.to_json())


def _trained_on(
    checkpoint: Path | None, identity: "CheckpointIdentity | None", *, manifest: Path | None
) -> Container[str] | None:
    """Return the training images that the manifest or the checkpoint's own list names; None without either."""
    from medmoe.training.data.leakage.trained_images import manifest_images
    from medmoe.training.evaluation.provenance import trained_images

    if manifest is not None:
        return manifest_images(manifest)
    return None if checkpoint is None or identity is None else trained_images(checkpoint, identity)


@contextmanager
def _tower(
    checkpoint: Path | None, data: "EvaluationData", *, features: Path | None, device: str
) -> "Iterator[Features | None]":
    """Give the features of all labelled images; without a folder they last as long as the context."""
    if checkpoint is None:
        yield None
        return
    from medmoe.training.evaluation.predict.linear_probe import tower_features

    samples = (*data.samples, *data.train, *data.val)
    with tempfile.TemporaryDirectory() as own:
        yield tower_features(checkpoint, features or Path(own), samples=samples, device=device)


app = single_command(evaluate, "eval")


if __name__ == "__main__":
    app(prog_name="medmoe eval")
