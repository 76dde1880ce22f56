"""`medmoe manifest --data DIR --dataset NAME`: count and hash datasets, and name leaks."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from medmoe.model.cli import single_command
from medmoe.training.config import Split
from medmoe.training.data.dataset import DATA_HELP, read_dataset
from medmoe.training.data.detection import detect
from medmoe.training.data.errors import DataError
from medmoe.training.data.protocols import against_protocol
from medmoe.training.data.sample import Sample


def manifest(
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    dataset: Annotated[
        list[str],
        typer.Option(
            help="Folder or file below --data, in any known format; FILE:train, FILE:val or FILE:test for a file that "
            "does not say its split."
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="Write the manifest there, as JSON.")] = None,
    image_directory: Annotated[Path | None, typer.Option(help="Where MedMNIST's images are written.")] = None,
    pixels: Annotated[bool, typer.Option(help="Decode every image: slower, finds cut-off and re-saved ones.")] = True,
    strict: Annotated[bool, typer.Option(help="Exit with status 1 when anything is bad or leaks.")] = False,
) -> None:
    """Count and hash every split of every dataset, and name each held-out image that is a training image too."""
    # Imported here because torch takes seconds.
    from medmoe.training.data.leakage.manifest import build_manifest

    samples: list[Sample] = []
    bad = 0
    for name in dataset:
        found, broken = _read(data, name, image_directory=image_directory)
        samples += found
        bad += broken
    result = build_manifest(samples, pixels=pixels)
    for split, found_in in result.splits.items():
        typer.echo(f"{split}: {found_in['samples']} samples, {found_in['images']} images")
    for sample in result.unreadable:
        typer.echo(f"unreadable image: {sample}")
    for owner in result.repeated_ids:
        typer.echo(f"id of several samples: {owner}")
    for leak in result.leaks:
        typer.echo(f"in train, same {leak.same}: {leak}")
    typer.echo(f"{len(result.leaks)} held-out images are in train")
    if output is not None:
        output.write_text(result.to_json())
    if strict and (bad or result.unreadable or result.repeated_ids or result.leaks):
        raise typer.Exit(1)


def _read(data: Path, name: str, *, image_directory: Path | None) -> tuple[list[Sample], int]:
    """Return the samples of all splits of one dataset, and the number of bad records; what is wrong goes to standard
    error.
    """
    file, _, named = name.rpartition(":")
    path = data / (file if named in get_args(Split) else name)
    wanted = (cast(Split, named),) if named in get_args(Split) else get_args(Split)
    found = detect(path)
    if len(wanted) > 1 and not found.knows_splits:
        raise DataError(f"{name} does not say its split: write {name}:train, {name}:val or {name}:test")
    samples: list[Sample] = []
    bad = 0
    for split in wanted:
        result = read_dataset(path, split=split, image_directory=image_directory)
        samples += result.samples
        bad += len(result.bad)
        if line := against_protocol(found, split, samples=len(result.samples)):
            typer.echo(f"{name} ({split}): {line}")
        # That a file also holds other splits is no news.
        if result.bad or result.renamed or any(not reason.startswith("split ") for reason in result.excluded):
            typer.echo(f"{name} ({split}): {result.summary()}", err=True)
    return samples, bad


app = single_command(manifest, "manifest")


if __name__ == "__main__":
    app(prog_name="medmoe manifest")
