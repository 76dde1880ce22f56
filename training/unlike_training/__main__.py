"""`medmoe reference CHECKPOINT --data DIR --dataset NAME`: write and measure training_reference.safetensors.

With it, a service tells which images are unlike all that the checkpoint was trained on.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmoe.client.images.folder import files_below
from medmoe.model.cli import single_command
from medmoe.model.image_formats.signature import RASTER_SUFFIXES
from medmoe.training.config import MAX_SEED
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.data.errors import DataError
from medmoe.training.disk_space import require_writable_checkpoint

if TYPE_CHECKING:
    from medmoe.training.unlike_training.images import DatasetImages
    from medmoe.training.unlike_training.measure import Measured
    from medmoe.training.unlike_training.pooled_features import FeaturePooling, PooledFeatures

_FIRST_FIT_SEED = 10_000
"""Drawn images that a reference is fitted to have other seeds than those that measure it."""


def reference(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory; the reference is written there.")
    ],
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    dataset: Annotated[list[str], typer.Option(help="Folder or file below --data that the checkpoint was trained on.")],
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="Measure a reference that does not know this dataset; nothing is written."),
    ] = None,
    also: Annotated[
        list[Path] | None, typer.Option(help="Folder of further images that should be flagged, such as photographs.")
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(min=0.001, max=0.2, help="Share of the val images that the threshold flags.")
    ] = 0.03,
    images: Annotated[int, typer.Option(min=50, help="Training images that the reference keeps.")] = 5000,
    drawn: Annotated[int, typer.Option(min=20, help="Drawn images of each kind, to fit to and to measure on.")] = 100,
    features: Annotated[Path | None, typer.Option(help="Folder of tower features, shared with training runs.")] = None,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the choice of training images.")] = 0,
) -> None:
    """Compare images with those that a checkpoint was trained on, by its frozen vision tower.

    Training images make the reference, val images its threshold, test images and drawn ones measure it. Research
    software, not a medical device.
    """
    # Imported here because torch takes seconds.
    from medmoe.model.checkpoint.io import load_checkpoint
    from medmoe.model.unlike_training.scorer import UnlikeTraining
    from medmoe.model.unlike_training.tower_digest import tower_sha256
    from medmoe.training.unlike_training.fit import FitData
    from medmoe.training.unlike_training.images import read_images
    from medmoe.training.unlike_training.measure import fit_reference, measure
    from medmoe.training.unlike_training.pooled_features import FeaturePooling, PooledFeatures
    from medmoe.training.unlike_training.write import write_reference

    out = leave_out or []
    if unknown := sorted(set(out) - set(dataset)):
        raise DataError(f"--leave-out names what --dataset does not: {', '.join(unknown)}")
    found = read_images(data, dataset)
    kept = [part for part in found if part.dataset not in out]
    model = load_checkpoint(checkpoint)
    if not out:
        require_writable_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as own:
        pooling = FeaturePooling(model, folder=features or Path(own), device=device)
        data_to_fit = FitData(
            train=pooling.files([image for part in kept for image in part.train]),
            datasets=[part.dataset for part in kept for _ in part.train],
            held_out=pooling.files([image for part in kept for image in part.val]),
            drawn=PooledFeatures.joined(_drawn(pooling, count=drawn, first=_FIRST_FIT_SEED).values()),
        )
        made, tensors = fit_reference(
            data_to_fit,
            tower_sha256=tower_sha256(checkpoint, model.config),
            datasets=[part.dataset for part in kept],
            images=images,
            false_alarms=false_alarms,
            seed=seed,
        )
        rows = measure(
            UnlikeTraining(made, tensors),
            known={
                f"{part.dataset}, {'test' if part.test else 'val'}": pooling.files(part.test or part.val)
                for part in kept
                if part.test or part.val
            },
            unknown=_left_out(pooling, [part for part in found if part.dataset in out])
            | _drawn(pooling, count=drawn, first=0)
            | {f"{folder}, also": pooling.files(_files(folder)) for folder in also or ()},
        )
    if not out:
        path = write_reference(checkpoint, made, tensors)
    typer.echo(_table(rows))
    if not out:
        typer.echo(f"wrote {path}: {path.stat().st_size / 1e6:.2f} MB, threshold {made.threshold:.2f}")


def _drawn(pooling: "FeaturePooling", *, count: int, first: int) -> "dict[str, PooledFeatures]":
    from medmoe.training.unlike_training.drawn_images import KINDS, draw

    return {kind: pooling.images([draw(kind, first + number) for number in range(count)]) for kind in KINDS}


def _left_out(pooling: "FeaturePooling", parts: "list[DatasetImages]") -> "dict[str, PooledFeatures]":
    return {f"{part.dataset}, left out": pooling.files(part.test or part.val or part.train) for part in parts}


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(path.absolute() for path in files_below(folder) if path.suffix.lower() in RASTER_SUFFIXES)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not found:
        raise DataError(f"{folder} holds no images")
    return found


def _table(rows: "list[Measured]") -> str:
    lines = ["| images | n | flagged | AUROC |", "| --- | --- | --- | --- |"]
    for row in rows:
        auroc = "" if row.auroc is None else f"{row.auroc:.3f}"
        lines.append(f"| {row.name} | {row.images} | {row.flagged / row.images:.1%} | {auroc} |")
    known = [row for row in rows if row.auroc is None]
    total, flagged = sum(row.images for row in known), sum(row.flagged for row in known)
    lines.append(f"| all images of known datasets | {total} | {flagged / max(total, 1):.1%} | |")
    return "\n".join(lines)


app = single_command(reference, "reference")


if __name__ == "__main__":
    app(prog_name="medmoe reference")
