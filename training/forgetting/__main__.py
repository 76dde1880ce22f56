"""`medmoe forgetting BASE --data DIR --output DIR --old NAME --new NAME`: compare what methods learn and forget.

BASE is a dense checkpoint that was trained on the old tasks. Every method adapts it to the new tasks, with every seed.
Every finished run is kept: a command that stopped continues, and one with more methods or seeds trains only those.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medmoe.model.cli import single_command, with_headings
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.lora.checkpoint import has_adapter
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.forgetting.methods import METHODS, Adaptation

if TYPE_CHECKING:
    from medmoe.training.forgetting.experiment import Experiment


@with_headings(
    {
        "Training": "samples epochs replay batch_size learning_rate adapter_learning_rate",
        "Evaluation": "split limit max_tokens",
    }
)
def forgetting(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Dense checkpoint that was trained on the old tasks.")],
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option(help="Folder of the runs and of the report; finished runs are kept.")],
    old: Annotated[list[str], typer.Option(help="Dataset that the base was trained on; repeat the option.")],
    new: Annotated[list[str], typer.Option(help="Dataset of a new task; repeat the option.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"Method to run; repeat the option. By default: {', '.join(METHODS)}.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method, with seeds 0, 1, ...")] = 3,
    epochs: Annotated[float, typer.Option(min=0.001, help="Passes over the training data.")] = 1.0,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of training samples of each new dataset.")
    ] = None,
    replay: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Samples of old tasks that are replayed, as a share of the new.")
    ] = 0.2,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a training step.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate of full finetuning.")] = 2e-4,
    adapter_learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate of adapters.")] = 1e-3,
    split: Annotated[Literal["val", "test"], typer.Option(help="Split to evaluate on.")] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of evaluated samples of each dataset.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder of tower features, such as the base's run has; by default below --output."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what will be done and how long it takes, and stop.")
    ] = False,
) -> None:
    """Adapt a checkpoint to new tasks by several methods, and measure what each forgets of the old ones.

    Writes a table, a figure and every number to --output. Research software, not a medical device.
    """
    names = list(dict.fromkeys(method or METHODS))
    if unknown := [name for name in names if name not in METHODS]:
        raise typer.BadParameter(f"no method {unknown[0]!r}; there are: {', '.join(METHODS)}")
    # Imported here because torch takes seconds.
    from medmoe.training.forgetting.experiment import Experiment
    from medmoe.training.forgetting.plan import check_disjoint, evaluated, new_entries, replay_entries

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    config = _dense(base)
    typer.echo("reading the data", err=True)
    measured_old, measured_new = (evaluated(data, group, split=split, limit=limit) for group in (old, new))
    check_disjoint(measured_old, measured_new)
    entries = new_entries(data, new, limit=samples)
    experiment = Experiment(
        base=base,
        data=data,
        output=output,
        features=features or output / "features",
        adaptation=Adaptation(
            base=config,
            new=entries,
            replay=replay_entries(data, old, new=entries, share=replay),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            adapter_learning_rate=adapter_learning_rate,
        ),
        old=measured_old,
        new=measured_new,
        split=split,
        max_tokens=max_tokens,
    )
    _tell(experiment, names, seeds=seeds)
    if plan:
        return
    typer.echo(experiment(names, range(seeds)))


def _dense(base: Path) -> MedMoEConfig:
    """Return the configuration of the base. Raises ConfigError when adapters do not fit it."""
    config = MedMoEConfig.from_directory(base)
    if config.text_config.moe_layers:
        raise ConfigError(f"{base} has MoE layers, and adapters need a dense base, such as RUN/2-instruction_tuning")
    if has_adapter(base):
        raise ConfigError(f"{base} holds an adapter; give its base checkpoint instead")
    return config


def _tell(experiment: "Experiment", names: list[str], *, seeds: int) -> None:
    """Say what will be done and how long it takes. Raises ConfigError when something is missing or does not fit."""
    from medmoe.training.disk_space import require_space
    from medmoe.training.optimization.runtime import RuntimeConfig
    from medmoe.training.planning.duration import estimated_seconds
    from medmoe.training.planning.survey import check_room, survey

    # The run that reads most.
    largest = max(names, key=lambda name: METHODS[name].replays)
    config = METHODS[largest](experiment.adaptation, seed=0)
    found = survey(config, data=experiment.data, directory=experiment.output, base=experiment.base)
    for line in found.lines():
        typer.echo(line, err=True)
    width = max(map(len, names))
    for name in names:
        typer.echo(f"{name:{width}}  {METHODS[name].about}", err=True)
    left = sum(not experiment.is_finished(name, seed) for name in names for seed in range(seeds))
    evaluated = len(experiment.old.samples) + len(experiment.new.samples)
    typer.echo(
        f"{len(names)} methods with {seeds} seeds: {left} runs are left to do; after each, {evaluated:,} samples are "
        "evaluated",
        err=True,
    )
    check_room(found, output=experiment.output, features=experiment.features, runtime=RuntimeConfig())
    size = sum(file.stat().st_size for file in experiment.base.glob("*.safetensors"))
    require_space(experiment.output, left * size, purpose="the runs need")
    seconds = estimated_seconds(replace(found, views=0))
    if seconds is not None:
        typer.echo(f"training takes about {left * seconds / 60:.0f} minutes on this machine at most", err=True)


app = single_command(forgetting, "forgetting")


if __name__ == "__main__":
    app(prog_name="medmoe forgetting")
