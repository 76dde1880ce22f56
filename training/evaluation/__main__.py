"""`python -m medmoe.training.evaluation CHECKPOINT --data DIR --dataset NAME`: scores on files that anyone can have.

Prints the Markdown tables to standard output; progress and everything about the data goes to standard error.
"""

import random
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.errors import MedMoEError
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.leaks import shared_images
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.records import RECORDS_FILE, read_records
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.image_features import ImageFeatures
from medmoe.training.evaluation.markdown import markdown
from medmoe.training.evaluation.predictors import LocalPredictor
from medmoe.training.evaluation.report import build_report
from medmoe.training.evaluation.scores import Scorer

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


class _Split(StrEnum):
    train = "train"
    val = "val"
    test = "test"


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    data: Annotated[Path, typer.Option(help="Folder that holds one folder for each dataset.")],
    dataset: Annotated[
        list[str], typer.Option(help="Folder below --data, or a .jsonl file in one (bccd_cells/vqa_records.jsonl).")
    ],
    split: Annotated[_Split, typer.Option(help="Split to answer; the baselines always come from train.")] = _Split.test,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many samples of each dataset, drawn with --seed.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the whole report there as JSON.")] = None,
    device: Annotated[str, typer.Option(help="Torch device; a GPU is many times faster.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time; memory grows with it.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens; a longer one is cut.")] = 32,
    seed: Annotated[int, typer.Option(help="Of --limit's draw and of the bootstrap.")] = 0,
) -> None:
    """Answer a split of each dataset and print scores, intervals, baselines and leaks.

    Research software, not a medical device.
    """
    try:
        samples: list[Sample] = []
        train: list[Sample] = []
        for name in dataset:
            samples += _drawn(_read(data / name, split=split.value), limit=limit, seed=seed)
            train += _read(data / name, split="train")
        if not samples:
            raise DataError(f"none of the datasets has a {split.value} split")
        # Samples of the train split share their images with themselves, which says nothing.
        leaked = [] if split is _Split.train else shared_images(train, test=samples)
        answers = _answers(checkpoint, samples=samples, device=device, batch_size=batch_size, max_tokens=max_tokens)
        report = build_report(
            samples, answers=answers, train=train, shared={sample.id for sample in leaked}, scorer=Scorer(seed=seed)
        )
    except MedMoEError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(markdown(report))
    typer.echo(
        f"{sum(section.in_train for section in report.sections)} of {len(samples)} samples share an image with train."
    )
    if output is not None:
        output.write_text(report.to_json())


def _read(path: Path, *, split: Split) -> tuple[Sample, ...]:
    directory, file = (path.parent, path.name) if path.suffix == ".jsonl" else (path, RECORDS_FILE)
    result: ReadResult = read_records(directory, splits={split}, file=file)
    if result.bad:
        typer.echo(f"{path} ({split}): {result.summary()}", err=True)
    return result.samples


def _drawn(samples: tuple[Sample, ...], *, limit: int | None, seed: int) -> list[Sample]:
    """The first lines of a file are often one class or one patient: the part is drawn, and kept in file order."""
    if limit is None or limit >= len(samples):
        return list(samples)
    places = sorted(random.Random(seed).sample(range(len(samples)), limit))
    return [samples[place] for place in places]


def _answers(
    checkpoint: Path, *, samples: list[Sample], device: str, batch_size: int, max_tokens: int
) -> dict[str, str]:
    model = load_checkpoint(checkpoint).to(device)
    predictor = LocalPredictor(
        model,
        prompt=Prompt.from_directory(checkpoint, model.config),
        features=ImageFeatures(model, processor=ImageProcessor.from_config(model.config)),
        max_tokens=max_tokens,
        batch_size=batch_size,
    )
    with typer.progressbar(
        predictor.predict(samples), length=len(samples), label="answering", file=sys.stderr
    ) as answers:
        return dict(answers)


if __name__ == "__main__":
    app()
