"""`medmoe ask IMAGE QUESTION`: one question to a running service."""

from contextlib import closing
from typing import Annotated

import typer

from medmoe.client.answers.vqa import Delta, VqaAnswer
from medmoe.client.client import Client
from medmoe.client.commands.connection import AsJson, Timeout, TokenFile, Url, client_of
from medmoe.client.commands.images import (
    Frame,
    ImageArgument,
    MinConfidence,
    Modality,
    PixelsOnly,
    Routing,
    Window,
    picture,
)
from medmoe.client.commands.terminal import as_json, note, safe
from medmoe.client.images.image import Picture
from medmoe.client.options import AskOptions
from medmoe.client.transport.address import LOCAL

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def ask(
    image: ImageArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is generated.")] = False,
    window: Window = None,
    frame: Frame = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0: the most likely answer.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of a temperature above 0.")] = None,
    min_confidence: MinConfidence = None,
    modality: Modality = None,
    routing: Routing = False,
    pixels_only: PixelsOnly = False,
    url: Url = LOCAL,
    token_file: TokenFile = None,
    timeout: Timeout = 120.0,
    json_: AsJson = False,
) -> None:
    """Ask a running service a question about a picture.

    The answer goes to standard output, how sure it is to standard error. Research software, not a medical device.
    """
    if routing and not json_:
        raise typer.BadParameter("--routing is printed with --json")
    options: AskOptions = {
        "window": window,
        "frame": frame,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "min_confidence": min_confidence,
        "modality": modality,
        "include_routing": routing,
    }
    with client_of(url, token_file, timeout) as client:
        given = picture(image, pixels_only=pixels_only)
        if stream:
            _stream(client, given, question, options, json_=json_)
        else:
            answer = client.ask(given, question, **options)
            typer.echo(as_json(answer) if json_ else safe(answer.answer))
            if not json_:
                _tell(answer)


def _stream(client: Client, given: Picture, question: str, options: AskOptions, *, json_: bool) -> None:
    """In JSON an event a line; else the text as it comes."""
    with closing(client.stream(given, question, **options)) as events:
        for event in events:
            if json_:
                typer.echo(as_json({"delta": event.text} if isinstance(event, Delta) else event))
            elif isinstance(event, Delta):
                typer.echo(safe(event.text), nl=False)
            else:
                typer.echo()
                _tell(event)


def _tell(answer: VqaAnswer) -> None:
    told = []
    if answer.confidence is not None:
        own = "calibrated" if answer.confidence.calibrated else "the model's own, not calibrated"
        told.append(f"confidence {answer.confidence.value:.3f} ({own})")
    if answer.abstained:
        told.append("ABSTAINED: not to be relied on")
    if answer.finish_reason == "length":
        told.append(f"cut after {answer.usage.completion_tokens} tokens")
    if told:
        note("; ".join(told))
