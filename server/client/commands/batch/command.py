"""`medmoe batch`: ask a service about many images, resumable after an interruption."""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.answers import Mode
from medmoe.client.async_client import AsyncClient
from medmoe.client.batch.result_file import ResultFile
from medmoe.client.batch.result_format import left_out
from medmoe.client.batch.runner import PATIENT, Load, run
from medmoe.client.batch.task import Task
from medmoe.client.batch.task_source import read_tasks
from medmoe.client.commands.batch.on_ray import BatchOnRay, batch_on_ray
from medmoe.client.commands.batch.outcome import asked_again, print_counts, require_no_errors, resumable
from medmoe.client.commands.connection import (
    JsonOption,
    ServiceOptions,
    TokenFileOption,
    api_key,
    reported,
    usage_errors,
)
from medmoe.client.commands.images import (
    AllowUniformOption,
    AllowUnlikeTrainingOption,
    MaxTokensOption,
    MinConfidenceOption,
    PixelsOnlyOption,
    WindowOption,
    prepared,
)
from medmoe.client.commands.request_options import RequestOptions, refuse_options, require_several
from medmoe.client.commands.terminal import has_progress_bar, note
from medmoe.client.images.image import Image
from medmoe.client.transport.address import LOCAL, URL_VARIABLE
from medmoe.model.cli import with_headings


@with_headings(
    RequestOptions.HEADINGS
    | ServiceOptions.HEADINGS
    | {"Ray": "on_ray address actors cpus_per_actor gpus_per_actor rows_per_file"}
)
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            exists=True,
            help="Folder of images; or a JSONL, CSV or Parquet file with the fields image (a path relative to the "
            "file), question or labels, and options of the request.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="File to write or to continue: .jsonl or .csv; with --ray a folder."),
    ],
    question: Annotated[
        str | None, typer.Option(help="Question about each image of a folder, and default for the lines of a file.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Label, to classify instead; repeat the option for each label.")
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="Mode of classifications.")] = None,
    window: WindowOption = None,
    max_tokens: MaxTokensOption = None,
    min_confidence: MinConfidenceOption = None,
    allow_unlike_training: AllowUnlikeTrainingOption = False,
    allow_uniform: AllowUniformOption = False,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Number of concurrent requests; with --ray of each actor.")
    ] = 8,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask the lines with errors again.")] = False,
    pixels_only: PixelsOnlyOption = False,
    url: Annotated[
        list[str] | None,
        typer.Option(
            envvar=URL_VARIABLE,
            help=f"Address of the service, by default {LOCAL}. With --ray repeat it for several replicas; without it "
            "each actor runs an engine of its own, as the MEDMOE_ settings say.",
        ),
    ] = None,
    token_file: TokenFileOption = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each line, including retries.")] = 600,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Answer with actors on a Ray cluster; the output is a folder of Parquet files.",
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Address of the cluster, by default RAY_ADDRESS, or Ray on this machine alone."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Number of actors, by default one a GPU, or one a node."),
    ] = None,
    cpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0, help="CPUs that an actor reserves, by default its share of all."),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs that an actor reserves, by default those that the engine needs."),
    ] = None,
    rows_per_file: Annotated[
        int | None, typer.Option(min=1, help="Rows of a block, which are written as one file.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Ask a running service about many images. Run the same command again to continue after an interruption.

    Lines are in the input's order. The exit status is 1 if a line has an error.
    Research software, not a medical device.
    """
    if source.is_dir() and question is None and not label:
        raise typer.BadParameter("a folder needs --question or --label")
    if source.is_dir() and label:
        require_several(label, mode)
        refuse_options({"max_tokens": max_tokens}, "with labels")
    elif source.is_dir():
        refuse_options({"mode": mode}, "with a question")
    if not on_ray:
        of_ray = {"address": address, "actors": actors, "cpus_per_actor": cpus_per_actor}
        refuse_options(of_ray | {"gpus_per_actor": gpus_per_actor, "rows_per_file": rows_per_file}, "without --ray")
    elif not url:
        refuse_options({"token_file": token_file}, "with --ray and without --url")
    options = {
        "mode": mode,
        "window": window,
        "max_tokens": max_tokens,
        "min_confidence": min_confidence,
        # An absent option leaves the keys of earlier runs as they are.
        "allow_unlike_training": allow_unlike_training or None,
        "allow_uniform": allow_uniform or None,
    }
    tasks = read_tasks(source, question=question, labels=label, options=options)
    for text in tasks.notes:
        note(text)
    load = partial(_load, pixels_only=pixels_only)
    if on_ray:
        batch_on_ray(
            tasks.tasks,
            output,
            BatchOnRay(
                address=address,
                actors=actors,
                cpus_per_actor=cpus_per_actor,
                gpus_per_actor=gpus_per_actor,
                rows_per_file=rows_per_file,
                urls=tuple(url or ()),
                token_file=token_file,
                load=load,
                concurrency=concurrency,
                timeout=timeout,
                retry_errors=retry_errors,
            ),
            json_=json_,
        )
        return
    if len(url or ()) > 1:
        raise typer.BadParameter("several addresses need --ray")
    with usage_errors():
        client = AsyncClient(
            url[0] if url else None, api_key=api_key(token_file), timeout=timeout, retry=reported(PATIENT)
        )
        file = ResultFile(output)
    if lacking := left_out(output, tasks.tasks):
        note(f"{output} has no column for what is asked for: {lacking}; an output that ends in .jsonl holds it")
    keys = [task.key for task in tasks.tasks]
    with file:
        again = file.failed & set(keys) if retry_errors else frozenset()
        file.drop(again | asked_again(tasks.tasks, file.images, load=load, output=output))
        asked = _answer(client, tasks.tasks, file, load=load, concurrency=concurrency)
        file.arrange(keys)
        counts = {"lines": len(keys), "asked": asked, "errors": len(file.failed & set(keys))}
    print_counts(counts, json_=json_)
    require_no_errors(counts, output)


def _answer(client: AsyncClient, tasks: Sequence[Task], file: ResultFile, *, load: Load, concurrency: int) -> int:
    """Answer the tasks that have no line in `file`; return their number. Raises ClientError, typer.Exit."""
    open_ = [task for task in tasks if task.key not in file.done]

    async def run_all() -> None:
        async with client:
            await run(client, open_, file, load=load, concurrency=concurrency, tick=lambda: bar.update(1))

    def answered() -> str:
        return f"{sum(task.key in file.done for task in tasks)} of {len(tasks)} lines are answered"

    with typer.progressbar(
        length=len(tasks), label="answering", file=sys.stderr, hidden=not has_progress_bar(), show_pos=True
    ) as bar:
        bar.update(len(tasks) - len(open_))
        with resumable(answered):
            asyncio.run(run_all())
    return len(open_)


def _load(task: Task, *, pixels_only: bool) -> Image:
    return prepared(Image.of(task.path), pixels_only=pixels_only, frame=task.options.get("frame"))
