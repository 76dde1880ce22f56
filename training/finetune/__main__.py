"""`medmoe finetune [CHECKPOINT] DATA --output OUT`: train a checkpoint on images of the user's own."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import medmoe.model
from medmoe.model.cli import INTERRUPTED, single_command


def finetune(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[CHECKPOINT] DATA",
            help="DATA: a folder for each label, a CSV or .jsonl file with image and label or image, question and "
            "answer, or a dataset that `medmoe eval` reads. CHECKPOINT: the bundled one unless given.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Directory to write; the same command continues an unfinished run.")],
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most; by default as the number of samples asks.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Highest of the run; by default the method's own.")
    ] = None,
    method: Annotated[
        Literal["experts", "full", "lora"] | None,
        typer.Option(
            help="What is trained: full (the default) is projector and decoder without routers, experts leaves "
            "attention out, lora trains adapters alone."
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of the patient or study: its images stay in one split.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Data of earlier training, in any form of DATA: some samples are trained on again, against "
            "forgetting, and others are measured before and after."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the division into splits and of the training.")] = 0,
    check: Annotated[bool, typer.Option("--check", help="Say what was understood, and stop.")] = False,
) -> None:
    """Train a checkpoint on images of your own and write a directory that serves.

    Research software, not a medical device.
    """
    if len(paths) > 2:
        raise typer.BadParameter("give DATA, or CHECKPOINT and DATA")
    # Before the imports, which take seconds.
    typer.echo(f"reading {paths[-1]}", err=True)
    bundled = Path(medmoe.model.__path__[0]) / "pretrained" / "medmoe-tiny"
    # Torch takes seconds to import, and --help needs none of it.
    from medmoe.training.finetune.run import Finetune

    run = Finetune(
        checkpoint=paths[0] if len(paths) == 2 else bundled,
        data=paths[-1],
        output=output,
        epochs=epochs,
        learning_rate=learning_rate,
        method=method,
        group=group,
        replay=replay,
        seed=seed,
    )
    run.check()
    split = run.split()
    typer.echo(split.table())
    for warning in split.warnings():
        typer.echo(f"warning: {warning}", err=True)
    if check:
        return
    try:
        table = run(split)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command continues the run", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(table)
    typer.echo(f"wrote {output}\nserve it: MEDMOE_MODEL={output} medmoe serve")


app = single_command(finetune, "finetune")


if __name__ == "__main__":
    app(prog_name="medmoe finetune")
