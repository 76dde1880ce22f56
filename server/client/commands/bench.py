"""`medmoe bench`: measure a service's throughput, latency and refusals."""

import asyncio
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.answers import Metadata
from medmoe.client.async_client import AsyncClient
from medmoe.client.bench.load import Outcome, Workload, closed_loop, open_loop
from medmoe.client.bench.report import Level, level
from medmoe.client.commands.connection import JsonOption, ServiceOptions, api_key, usage_errors, with_option_groups
from medmoe.client.commands.request_options import refuse_given
from medmoe.client.commands.terminal import as_json, has_progress_bar, note, table
from medmoe.client.images.image import Image
from medmoe.client.transport.retry import Retry
from medmoe.model.cli import INTERRUPTED

_ONCE = Retry(attempts=1)
_CLIENTS = "1,8,32"


@with_option_groups()
def bench(
    context: typer.Context,
    clients: Annotated[
        str, typer.Option(help="Numbers of concurrent clients, one level for each (closed loop).")
    ] = _CLIENTS,
    rate: Annotated[
        str | None, typer.Option(help="Requests a second with Poisson arrivals, such as 2,4,8; not with --clients.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Duration of each level; pending requests are waited for.")
    ] = 10.0,
    image: Annotated[
        list[Path] | None, typer.Option(help="Image to ask about; repeat the option. By default noise is generated.")
    ] = None,
    noise_images: Annotated[
        int, typer.Option(min=1, help="Number of noise images; repeated images hit the service's caches.")
    ] = 64,
    question: Annotated[str, typer.Option(help="Question about each image.")] = "What is shown in the image?",
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer in tokens.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the noise and of the arrivals.")] = 0,
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """Measure a running service's throughput, time to the first piece of an answer, latency and refusals.

    Every request is sent once and streamed. On the service's own machine the client takes processor time from it.
    """
    if rate is not None:
        refuse_given(context, "clients", "with --rate")
    if image:
        refuse_given(context, "noise_images", "with --image")
        if rate is None:
            refuse_given(context, "seed", "with --image and without --rate")
    closed, rates = _numbers(clients, "--clients"), _numbers(rate, "--rate") if rate is not None else []
    images = tuple(map(Image.of, image)) if image else _noise(noise_images, seed=seed)
    workload = Workload(images=images, question=question, max_tokens=max_tokens)
    with usage_errors():
        client = AsyncClient(service.url, api_key=api_key(service.token_file), timeout=service.timeout, retry=_ONCE)
    loads = [f"{number:g}/s" for number in rates] or [f"c={number:g}" for number in closed]

    served: list[Metadata] = []
    levels: list[Level] = []

    async def measure() -> None:
        # Image 0 is the warm-up's.
        numbers = itertools.count(1)
        async with client:
            served.append(await client.metadata())
            # The warm-up reports a request that cannot be answered, and opens the first connection.
            await client.ask(images[0], question, max_tokens=max_tokens)
            with typer.progressbar(loads, label="measuring", file=sys.stderr, hidden=not has_progress_bar()) as bar:
                for number, load in enumerate(bar):
                    outcomes: list[Outcome]
                    if rates:
                        outcomes = await open_loop(
                            client, workload, rate=rates[number], seconds=seconds, seed=seed, numbers=numbers
                        )
                    else:
                        outcomes = await closed_loop(
                            client, workload, clients=int(closed[number]), seconds=seconds, numbers=numbers
                        )
                    levels.append(level(load, outcomes))

    try:
        asyncio.run(measure())
    except KeyboardInterrupt:
        note(f"interrupted: {len(levels)} of {len(loads)} levels are measured")
        _print(served, levels, json_=json_)
        raise typer.Exit(INTERRUPTED) from None
    _print(served, levels, json_=json_)


def _print(served: Sequence[Metadata], levels: Sequence[Level], *, json_: bool) -> None:
    if not levels:
        return
    (service,) = served
    if json_:
        typer.echo(as_json({"service": service.model_dump(mode="json"), "levels": [one.document() for one in levels]}))
        return
    note(f"{service.model} on {service.engine} {service.engine_version or ''}".rstrip())
    typer.echo(_table(levels))


def _noise(count: int, *, seed: int) -> tuple[Image, ...]:
    # Imported here because numpy and Pillow are slow to import.
    from medmoe.client.images.pixels import noise_pngs

    return tuple(map(Image, noise_pngs(count, seed=seed)))


def _numbers(text: str, name: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < number < 1e6 for number in found) or (name == "--clients" and any(n != int(n) for n in found)):
        raise typer.BadParameter(f"{name} takes numbers above 0 with commas between them")
    return found


def _table(levels: Sequence[Level]) -> str:
    headers = ("load", "answers/s", "tokens/s", "first p50", "first p99", "p50", "p90", "p99", "outcomes")
    return table(
        headers,
        [
            (
                one.load,
                f"{one.answered_per_second:.3g}",
                f"{one.tokens_per_second:.3g}",
                *(_milliseconds(value) for value in (one.first_p50, one.first_p99, one.p50, one.p90, one.p99)),
                ", ".join(f"{name}: {count}" for name, count in one.outcomes.items()),
            )
            for one in levels
        ],
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f} ms"
