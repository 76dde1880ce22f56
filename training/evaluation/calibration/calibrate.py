"""`medmoe calibrate CHECKPOINT --data DIR --dataset NAME`: write calibration.json.

The file belongs to the weights that it was fitted to; a service that finds it can say how often such answers are right.
"""

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medmoe.model.cli import single_command, with_headings
from medmoe.model.errors import MedMoEError
from medmoe.model.files.calibration import (
    CALIBRATION_FILE,
    AnswerCalibration,
    Calibration,
    LabelCalibration,
    Temperature,
)
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import MAX_SEED, Split
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.data.detection import detect
from medmoe.training.data.errors import DataError
from medmoe.training.disk_space import require_writable_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medmoe.training.data.sample import Sample


class _Dtype(StrEnum):
    # Typer takes no lists of literals.
    float32 = "float32"
    bfloat16 = "bfloat16"


@with_headings(
    {
        "Computation": "device batch_size max_tokens dtype",
    }
)
def calibrate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory; calibration.json is written there.")
    ],
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    dataset: Annotated[
        list[str], typer.Option(help="Folder or file below --data; questions, classifications or both.")
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Label to choose among, once for each; for tables and label folders with images of only some of them."
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Split to fit on and to measure on, with different images.")] = "val",
    method: Annotated[
        Literal["temperature", "isotonic"],
        typer.Option(
            help="temperature fits one or two parameters; isotonic fits any rising curve and needs more data."
        ),
    ] = "temperature",
    held_out: Annotated[
        float, typer.Option(min=0.1, max=0.9, help="Share of the images or patients kept from the fit, to measure it.")
    ] = 0.5,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of samples of each dataset.")] = None,
    image_directory: Annotated[
        Path | None, typer.Option(help="Folder for the images of MedMNIST arrays; by default beside the file.")
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time; memory grows with it.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    conformal: Annotated[
        bool,
        typer.Option(
            "--conformal",
            help="Write prediction sets too: labels that hold the true one with a probability that a request chooses.",
        ),
    ] = False,
    dtype: Annotated[
        list[_Dtype] | None,
        typer.Option(
            help="Number format of the engine; several times. Default: float32, and bfloat16 where it is fast."
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=MAX_SEED, help="Seed of the samples that --limit draws and of the division."),
    ] = 0,
) -> None:
    """Fit maps from the model's probabilities to how often they come true, and write them beside the weights.

    Research software, not a medical device. Calibrated on one kind of data says little about another.
    """
    # Imported here because torch takes seconds.
    from medmoe.training.evaluation.calibration.calibrator import Calibrator, only_helpful
    from medmoe.training.evaluation.calibration.conformal import fit_prediction_sets
    from medmoe.training.evaluation.evaluation_data import EvaluationData
    from medmoe.training.evaluation.predict.predictors import LocalPredictor, predict_in_formats, served_formats
    from medmoe.training.evaluation.provenance import CheckpointIdentity, trained_images

    if split != "val":
        typer.echo(f"warning: figures on the {split} split are no longer independent of this file", err=True)
    identity = CheckpointIdentity.of(checkpoint)
    require_writable_checkpoint(checkpoint)
    trained_on = trained_images(checkpoint, identity)
    read = EvaluationData.read(
        data,
        dataset,
        split=split,
        limit=limit,
        seed=seed,
        image_directory=image_directory,
        trained_on=trained_on,
        labels=tuple(label or ()),
    )
    for problem in read.problems:
        typer.echo(problem, err=True)
    read.check_images()
    for name in dict.fromkeys(dataset):
        if not detect(data / name).knows_splits:
            typer.echo(
                f"warning: {name} does not state its splits: figures of `medmoe eval` on it are not independent of "
                "this file",
                err=True,
            )
    samples = read.samples if trained_on is None else _unseen(read.samples)
    calibrator = Calibrator(method=method, held_out=held_out, seed=seed)
    calibrator.check_counts(samples)
    predictor = LocalPredictor.from_checkpoint(checkpoint, device=device, max_tokens=max_tokens, batch_size=batch_size)
    formats = served_formats(device) if dtype is None else tuple(one.value for one in dtype)
    predictions = predict_in_formats(predictor, samples, dtypes=formats, device=device)
    calibration = calibrator(
        samples,
        predictions=predictions,
        split=split,
        weights_sha256=identity.weights_sha256,
        adapter_sha256=identity.adapter_sha256,
        prompt_sha256=predictor.prompt.sha256,
    )
    for fit in calibration.label_sets:
        typer.echo(f"labels {', '.join(fit.labels)}: {_summary(fit)}")
    if calibration.answers is not None:
        typer.echo(f"answers: {_summary(calibration.answers)}")
    kept = only_helpful(calibration)
    if conformal:
        sets = fit_prediction_sets(samples, predictions=predictions, split=split, prompt_sha256=predictor.prompt.sha256)
        kept = kept.model_copy(update={"prediction_sets": sets})
        for one in sets:
            typer.echo(
                f"prediction sets of {', '.join(one.labels)}: {one.fitted_on.n} images, {one.bound_to.dtypes[0]}"
            )
    if kept.classification is None and kept.answers is None and not kept.prediction_sets:
        raise DataError("no map lowered both errors of the held-out samples; nothing is written")
    # One of other weights, or of another version, has nothing to lose.
    with suppress(MedMoEError):
        before = Calibration.of_weights(
            checkpoint, weights_sha256=identity.weights_sha256, adapter_sha256=identity.adapter_sha256
        )
        if before is not None and (lost := _lost(before, kept)):
            typer.echo(
                f"warning: the earlier {CALIBRATION_FILE} also had {'; '.join(lost)}; to keep all, name the datasets "
                "of all in one command",
                err=True,
            )
    write_atomically(checkpoint / CALIBRATION_FILE, kept.to_json())
    typer.echo(f"wrote {checkpoint / CALIBRATION_FILE}")


def _unseen(samples: "Sequence[Sample]") -> "tuple[Sample, ...]":
    """Leave out images of the training, of which the model is too sure. Raises DataError where none is left."""
    unseen = tuple(sample for sample in samples if not sample.image_in_train)
    if not unseen:
        raise DataError("the checkpoint was trained on every one of these images; calibrate it on others")
    if seen := len(samples) - len(unseen):
        typer.echo(f"left out: {seen} of {len(samples)} samples, because the checkpoint was trained on their images")
    return unseen


def _lost(before: Calibration, after: Calibration) -> list[str]:
    """Name what `before` holds and `after` does not."""
    maps, sets = (
        list(dict.fromkeys(one.labels for one in old if one.labels not in {each.labels for each in new}))
        for old, new in ((before.label_sets, after.label_sets), (before.prediction_sets, after.prediction_sets))
    )
    answers = ["a map for answers"] if before.answers is not None and after.answers is None else []
    return [
        *(f"a map for {', '.join(labels)}" for labels in maps),
        *answers,
        *(f"prediction sets of {', '.join(labels)}" for labels in sets),
    ]


def _summary(fit: LabelCalibration | AnswerCalibration) -> str:
    """Describe a map and its effect on held-out samples in a line."""
    found = fit.held_out
    shape = (
        f"temperature {fit.map.temperature:.3f}, bias {fit.map.bias:.3f}"
        if isinstance(fit.map, Temperature)
        else f"isotonic, {len(fit.map.x)} points"
    )
    return (
        f"{shape}; fitted on {fit.fitted_on.n}, on {found.n} others ECE {100 * found.ece_before:.1f} -> "
        f"{100 * found.ece_after:.1f} %, NLL {found.nll_before:.3f} -> {found.nll_after:.3f}"
        + ("" if fit.helps else "; left out: the model's own probabilities are better")
    )


app = single_command(calibrate, "calibrate")


if __name__ == "__main__":
    app(prog_name="medmoe calibrate")
