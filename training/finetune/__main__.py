"""`medmoe finetune [CHECKPOINT] DATA --output OUT`: train a checkpoint on images of the user's own."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medmoe.model.cli import INTERRUPTED, single_command
from medmoe.model.config import BUNDLED
from medmoe.model.files.terminal_safe import MAX_MESSAGE, terminal_safe
from medmoe.training.config import MAX_SEED
from medmoe.training.finetune.data import read_own_data

if TYPE_CHECKING:
    from medmoe.training.finetune.split import OwnSplit


def finetune(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[CHECKPOINT] DATA",
            help="DATA: a folder for each label, a CSV or .jsonl file with image and label or image, question and "
            "answer, or a dataset that `medmoe eval` reads. CHECKPOINT: the bundled one unless given.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Directory to write; the same command continues an unfinished run. Only --check does without it."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of epochs; by default more for fewer samples, 4 to 40.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Peak learning rate; by default the method's own.")
    ] = None,
    method: Annotated[
        Literal["experts", "full", "lora"] | None,
        typer.Option(
            help="Parameters to train: full (the default) trains the projector and the decoder without its routers, "
            "experts leaves attention and embeddings out too, lora trains adapters alone."
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of the patient or study: its images stay in one split.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Data of earlier training, in any form of DATA, against forgetting: some samples are trained on "
            "again, and others are measured before and after."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the division into splits and of the training.")
    ] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Print what was read and how it is divided into splits, and stop.")
    ] = False,
) -> None:
    """Train a checkpoint on images of your own and write a directory that serves.

    Research software, not a medical device.
    """
    if len(paths) > 2:
        raise typer.BadParameter("give DATA, or CHECKPOINT and DATA")
    if output is None and not check:
        raise typer.BadParameter("--output is needed: the directory to write; --check does without it")
    typer.echo(f"reading {paths[-1]}", err=True)
    own = read_own_data(paths[-1], group=group)
    # Torch takes seconds to import; --help and a wrong path need none of it.
    from medmoe.training.finetune.split import split_own_data

    if output is None:
        _tell(split_own_data(own, seed=seed))
        return
    from medmoe.training.finetune.run import Finetune

    run = Finetune(
        checkpoint=paths[0] if len(paths) == 2 else BUNDLED,
        output=output,
        epochs=epochs,
        learning_rate=learning_rate,
        method=method,
        replay=replay,
        seed=seed,
    )
    run.check()
    split = split_own_data(own, seed=seed)
    _tell(split)
    if check:
        return
    try:
        table = run(split)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command continues the run", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(table)
    serving = shlex.join(["medmoe", "serve", str(output)])
    typer.echo(f"wrote {output}\nserve it: {serving}\nask it: {_question(split)}")


def _tell(split: "OwnSplit") -> None:
    """Print the samples of each split, and warnings on standard error."""
    typer.echo(split.table())
    for warning in split.warnings():
        typer.echo(terminal_safe(f"warning: {warning}", limit=MAX_MESSAGE), err=True)


def _question(split: "OwnSplit") -> str:
    """Return a command that asks the served result about an image, with the labels or a question of the data."""
    sample = split.test[0]
    asked = ["classify", "IMAGE", *sample.labels] if sample.labels else ["ask", "IMAGE", str(sample.question)]
    return shlex.join(["medmoe", *asked])


app = single_command(finetune, "finetune")


if __name__ == "__main__":
    app(prog_name="medmoe finetune")
