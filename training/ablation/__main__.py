"""`medmoe ablate BASE --data DIR --output DIR`: compare methods on an equal budget.

BASE is a dense checkpoint after instruction tuning. Every finished trial is kept: a command that stopped continues,
and one with more recipes or seeds trains only those.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medmoe.model.cli import single_command, with_headings
from medmoe.model.prompt import Prompt
from medmoe.training.ablation.budget import Budget, check_equal
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import MAX_SEED
from medmoe.training.data.dataset import DATA_HELP
from medmoe.training.recipes.catalogue import RECIPES
from medmoe.training.run_directory import claim_directory, sole_run

if TYPE_CHECKING:
    from medmoe.training.ablation.trial import Answer, Trial
    from medmoe.training.evaluation.evaluation_data import EvaluationData
    from medmoe.training.evaluation.prediction import Prediction

log = logging.getLogger(__name__)
ABLATION_JSON, ABLATION_MARKDOWN = "ablation.json", "ablation.md"
METHODS = (
    "tiny-dense-sft",
    "tiny-moe",
    "tiny-moe-without-meta",
    "tiny-moe-learned-router",
    "tiny",
    "tiny-lora-r16",
    "tiny-med-moe-lora",
)


@with_headings(
    {
        "Training": "seed epochs samples",
        "Evaluation": "split limit max_tokens batch_size",
    }
)
def ablate(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help="Dense checkpoint after stage 2, from which every method starts.")
    ],
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option(help="Folder of the trials and of the table; finished trials are kept.")],
    dataset: Annotated[list[str], typer.Option(help="Folder or file below --data to evaluate on.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(help=f"Method to run; repeat the option. By default: {', '.join(METHODS)}.", show_default=False),
    ] = None,
    reference: Annotated[str, typer.Option(help="Recipe that the others are compared with, or base.")] = METHODS[0],
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MAX_SEED, help="Seed of the training; repeat the option for a spread. Default: 0."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.0, help="Epochs of every method's last stage; by default the recipes' own.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of training samples of each data entry.")
    ] = None,
    split: Annotated[
        Literal["val", "test"], typer.Option(help="Split to evaluate on: choose by val, report test.")
    ] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of evaluated samples of each dataset.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder of tower features, such as the base's run has; by default below --output."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time in evaluation.")] = 16,
) -> None:
    """Train recipes from one base on one budget, evaluate each, and set them beside the first and the base.

    Research software, not a medical device.
    """
    # Imported here because torch takes seconds.
    from medmoe.training.ablation.trial import trial, untrained
    from medmoe.training.evaluation.evaluation_data import EvaluationData

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    names = list(dict.fromkeys(recipe or METHODS))
    if unknown := [name for name in names if name not in RECIPES]:
        raise typer.BadParameter(f"no recipe {unknown[0]!r}; there are: {', '.join(RECIPES)}")
    if reference not in (*names, "base", METHODS[0]):
        raise typer.BadParameter(f"--reference {reference} is no method of this run: {', '.join(names)}, base")
    seeds = list(dict.fromkeys(seed or [0]))
    budget = Budget(epochs=epochs, limit=samples)
    configs = {name: RECIPES[name].build() for name in names}
    check_equal({name: budget(config, seed=0) for name, config in configs.items()})
    read = EvaluationData.read(data, dataset, split=split, limit=limit)
    setup = _setup(base, read, budget=budget, split=split, max_tokens=max_tokens)
    with sole_run(output):
        claim_directory(output, json.dumps(setup, indent=2) + "\n", made_of="ablation")
        answer = _answering(read, max_tokens=max_tokens, batch_size=batch_size)
        done = [untrained(base, directory=output / "base", answer=answer)]
        for run_seed in seeds:
            for name, config in configs.items():
                log.info("%s, seed %d", name, run_seed)
                done.append(
                    trial(
                        name,
                        budget(config, seed=run_seed),
                        base=base,
                        data=data,
                        directory=output / f"{name}-seed{run_seed}",
                        features=features or output / "features",
                        answer=answer,
                    )
                )
                text = _write(output, done, read=read, setup=setup, reference=reference)
    typer.echo(text)


def _setup(base: Path, read: "EvaluationData", *, budget: Budget, split: str, max_tokens: int) -> dict[str, Any]:
    """Return what must not change while trials join a table."""
    from medmoe.model.lora.checkpoint import base_identity

    return {
        "base": base_identity(base).model_dump(),
        "budget": asdict(budget),
        "data": [asdict(file) for file in read.files],
        "split": split,
        "max_tokens": max_tokens,
    }


def _answering(read: "EvaluationData", *, max_tokens: int, batch_size: int) -> "Answer":
    from medmoe.model.lora.checkpoint import load_adapted
    from medmoe.training.ablation.features import SharedFeatures
    from medmoe.training.evaluation.predict.predictors import LocalPredictor, with_progress

    features = SharedFeatures()

    def answer(checkpoint: Path) -> "Iterator[Prediction]":
        model = load_adapted(checkpoint)
        predictor = LocalPredictor(
            model,
            prompt=Prompt.from_directory(checkpoint, model.config),
            features=features.of(model),
            max_tokens=max_tokens,
            batch_size=batch_size,
        )
        yield from with_progress(predictor.predict)(read.samples)

    return answer


def _write(output: Path, done: "list[Trial]", *, read: "EvaluationData", setup: dict[str, Any], reference: str) -> str:
    """Write the table after each trial, so that an ablation that stops leaves what it finished; return it."""
    from medmoe.training.ablation.comparison import compare
    from medmoe.training.ablation.report import ablation_report
    from medmoe.training.evaluation.provenance import commit

    rows = compare(done, samples=read.samples, reference=reference)
    trials = [{name: value for name, value in asdict(found).items() if name != "answers"} for found in done]
    facts = {"format_version": 1, "commit": commit(), "setup": setup, "reference": reference}
    whole = facts | {"rows": [row.to_dict() for row in rows], "trials": trials}
    write_atomically(output / ABLATION_JSON, json.dumps(whole, indent=2, allow_nan=False) + "\n")
    text = ablation_report(rows, setup=setup, reference=reference)
    write_atomically(output / ABLATION_MARKDOWN, text)
    return text


app = single_command(ablate, "ablate")


if __name__ == "__main__":
    app(prog_name="medmoe ablate")
