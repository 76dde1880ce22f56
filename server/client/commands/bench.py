"""`medmoe bench`: how fast a running service answers, and what it refuses."""

import asyncio
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.answers.metadata import Metadata
from medmoe.client.async_client import AsyncClient
from medmoe.client.bench.load import Outcome, closed_loop, open_loop
from medmoe.client.bench.questions import Questions
from medmoe.client.bench.report import Level, level
from medmoe.client.commands.connection import AsJson, Timeout, TokenFile, Url, api_key, usage
from medmoe.client.commands.terminal import as_json, note, table, watched
from medmoe.client.images.image import Picture
from medmoe.client.transport.address import LOCAL
from medmoe.client.transport.retry import Retry

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_ONCE = Retry(attempts=1)
_CLIENTS = "1,8,32"


@app.command()
def bench(
    clients: Annotated[str, typer.Option(help="Clients at a time, one level each (closed loop).")] = _CLIENTS,
    rate: Annotated[
        str | None, typer.Option(help="Instead: requests a second, arriving at random (Poisson), such as 2,4,8.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For each level; what is inside then is waited for.")] = 10.0,
    image: Annotated[list[Path] | None, typer.Option(help="Picture to ask about; repeat it. Else made ones.")] = None,
    pictures: Annotated[
        int, typer.Option(min=1, help="How many to make; the service's cache knows a repeated one.")
    ] = 64,
    question: Annotated[str, typer.Option(help="Asked about each.")] = "What is shown in the picture?",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the pictures and of the arrivals.")] = 0,
    url: Url = LOCAL,
    token_file: TokenFile = None,
    timeout: Timeout = 120.0,
    json_: AsJson = False,
) -> None:
    """Put load on a running service: throughput, time to the first piece of an answer and to the last, outcomes.

    Every request is sent once and streamed; pictures come round again when all have been asked about. The client takes
    processor time too: beside the service it is measured with it.
    """
    closed, rates = _numbers(clients, "--clients"), _numbers(rate, "--rate") if rate is not None else []
    made_or_own = tuple(Picture.of(path) for path in image) if image else _made(pictures, seed=seed)
    asked = Questions(pictures=made_or_own, text=question, max_tokens=max_tokens)
    with usage():
        client = AsyncClient(url, api_key=api_key(token_file), timeout=timeout, retry=_ONCE)
    loads = [f"{number:g}/s" for number in rates] or [f"c={number:g}" for number in closed]

    async def all_levels() -> tuple[Metadata, list[Level]]:
        found = []
        # The warm-up has the first.
        numbers = itertools.count(1)
        async with client:
            served = await client.metadata()
            # What cannot be answered at all is said at once, and the first connection is nobody's latency.
            await client.ask(asked.pictures[0], asked.text, max_tokens=max_tokens)
            with typer.progressbar(loads, label="measuring", file=sys.stderr, hidden=not watched()) as bar:
                for number, load in enumerate(bar):
                    outcomes: list[Outcome]
                    if rates:
                        outcomes = await open_loop(
                            client, asked, rate=rates[number], seconds=seconds, seed=seed, numbers=numbers
                        )
                    else:
                        outcomes = await closed_loop(
                            client, asked, clients=int(closed[number]), seconds=seconds, numbers=numbers
                        )
                    found.append(level(load, outcomes))
        return served, found

    served, levels = asyncio.run(all_levels())
    if json_:
        typer.echo(as_json({"service": served.model_dump(mode="json"), "levels": [one.document() for one in levels]}))
        return
    note(f"{served.model} on {served.engine} {served.engine_version or ''}".rstrip())
    typer.echo(_table(levels))


def _made(count: int, *, seed: int) -> tuple[Picture, ...]:
    # Here and not above: numpy and Pillow would slow every start of the command.
    from medmoe.client.bench.noise import noise

    return noise(count, seed=seed)


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
