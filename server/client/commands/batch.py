"""`medmoe batch INPUT OUTPUT`: many pictures or lines to a running service, into a file that can be continued."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.answers.classify import Mode
from medmoe.client.async_client import AsyncClient
from medmoe.client.batch.result_file import ResultFile
from medmoe.client.batch.runner import run
from medmoe.client.batch.task_source import read_tasks
from medmoe.client.commands.connection import AsJson, TokenFile, Url, api_key, usage
from medmoe.client.commands.images import MinConfidence, PixelsOnly, Window, prepared
from medmoe.client.commands.terminal import as_json, note, watched
from medmoe.client.errors import ClientError, InvalidInput
from medmoe.client.images.image import Picture
from medmoe.client.transport.address import LOCAL
from medmoe.client.transport.retry import Retry

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_PATIENT = Retry(attempts=20, longest_pause=30.0)
"""Long enough for a service that restarts its engine, or itself."""


@app.command()
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            exists=True,
            help="Folder, of which every picture is asked about; or JSONL with image (a path beside it), question or "
            "labels, and fields of the request.",
        ),
    ],
    output: Annotated[Path, typer.Argument(help="File to write or to continue, .jsonl or .csv.")],
    question: Annotated[str | None, typer.Option(help="For a folder, and for lines without.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Classify instead; repeat it.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="Of classifications.")] = None,
    window: Window = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    min_confidence: MinConfidence = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask again what ended in an error.")] = False,
    pixels_only: PixelsOnly = False,
    url: Url = LOCAL,
    token_file: TokenFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each line, attempts and pauses included.")] = 600,
    json_: AsJson = False,
) -> None:
    """Ask a running service about many pictures. Run again, killed or not, it asks what has no line yet.

    Lines are in the input's order. Exit status 1 when a line ended in an error.
    Research software, not a medical device.
    """
    if source.is_dir() and question is None and not label:
        raise typer.BadParameter("a folder needs --question or --label")
    options = {"mode": mode, "window": window, "max_tokens": max_tokens, "min_confidence": min_confidence}
    tasks = read_tasks(source, question=question, labels=label, options=options)
    for left_out in tasks.notes:
        note(left_out)
    with usage():
        client = AsyncClient(url, api_key=api_key(token_file), timeout=timeout, retry=_PATIENT)
        file = ResultFile(output)
    with file:
        keys = [task.key for task in tasks.tasks]
        if retry_errors:
            file.drop(file.failed & set(keys))
        open_ = [task for task, key in zip(tasks.tasks, keys, strict=True) if key not in file.done]
        with typer.progressbar(
            length=len(keys), label="answering", file=sys.stderr, hidden=not watched(), show_pos=True
        ) as bar:
            bar.update(len(keys) - len(open_))

            async def all_of_them() -> None:
                async with client:
                    await run(
                        client,
                        open_,
                        file,
                        load=lambda task: prepared(Picture.of(task.path), pixels_only=pixels_only),
                        concurrency=concurrency,
                        tick=lambda: bar.update(1),
                    )

            try:
                asyncio.run(all_of_them())
            except InvalidInput:
                raise
            except ClientError as error:
                there = sum(key in file.done for key in keys)
                raise ClientError(f"{error}; {there} of {len(keys)} lines are there, run again to continue") from error
        file.arrange(keys)
        errors = len(file.failed & set(keys))
    counted = {"lines": len(keys), "asked": len(open_), "errors": errors}
    typer.echo(as_json(counted) if json_ else f"{len(keys)} lines, {len(open_)} asked now, {errors} with errors")
    if errors:
        raise ClientError(f"{errors} of {len(keys)} lines have errors; --retry-errors asks them again")
