"""`medmoe ask`: ask a service a question about an image."""

from contextlib import closing
from typing import Annotated

import typer

from medmoe.client.answers import Delta, VqaAnswer
from medmoe.client.client import Client
from medmoe.client.commands.connection import ServiceOptions, with_option_groups
from medmoe.client.commands.images import ImageArgument, MaxTokensOption
from medmoe.client.commands.request_options import RequestOptions, keep_report
from medmoe.client.commands.terminal import ABSTAINED, as_json, note, note_unlike_training, safe
from medmoe.client.images.image import Image
from medmoe.client.images.instance import Instance
from medmoe.client.options import AskOptions


@with_option_groups()
def ask(
    image: ImageArgument = None,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="Question about the image.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is generated.")] = False,
    max_tokens: MaxTokensOption = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="Sampling temperature; 0 takes the most likely answer.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None,
    *,
    request: RequestOptions,
    service: ServiceOptions,
) -> None:
    """Ask a running service a question about an image.

    The answer is printed on standard output, its confidence on standard error. Research software, not a medical device.
    """
    options: AskOptions = {
        **request.fields(),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    file, words = request.split(image, question)
    if len(words) != 1:
        raise typer.BadParameter("an image and a question are needed; with --source the question alone")
    with service.client() as client:
        given = request.read(file)
        if stream:
            _stream(client, given, words[0], options, json_=request.json_)
            return
        answer = client.ask(given, words[0], **options)
    keep_report(request.report_file, answer.report, answer.stored)
    typer.echo(as_json(answer) if request.json_ else safe(answer.answer))
    if not request.json_:
        _print_confidence(answer)


def _stream(client: Client, image: Image | Instance, question: str, options: AskOptions, *, json_: bool) -> None:
    """Print the text as it arrives, or as JSON one event a line."""
    with closing(client.stream(image, question, **options)) as events:
        for event in events:
            if json_:
                typer.echo(as_json({"delta": event.text} if isinstance(event, Delta) else event))
            elif isinstance(event, Delta):
                typer.echo(safe(event.text), nl=False)
            else:
                typer.echo()
                _print_confidence(event)


def _print_confidence(answer: VqaAnswer) -> None:
    notes = []
    if answer.confidence is not None:
        kind = "calibrated" if answer.confidence.calibrated else "the model's own, not calibrated"
        notes.append(f"confidence {answer.confidence.value:.3f} ({kind})")
    if answer.abstained:
        notes.append(ABSTAINED)
    if answer.finish_reason == "length":
        notes.append(f"cut after {answer.usage.completion_tokens} tokens")
    if notes:
        note("; ".join(notes))
    note_unlike_training(answer.unlike_training)
