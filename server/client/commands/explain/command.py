"""Ask a service where in the image an answer comes from."""

from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.commands.connection import JsonOption, TimeoutOption, TokenFileOption, UrlOption, create_client
from medmoe.client.commands.explain.output import print_map
from medmoe.client.commands.images import (
    AllowUniformOption,
    FrameOption,
    ImageArgument,
    InstanceOption,
    ModalityOption,
    PixelsOnlyOption,
    RoutingOption,
    SeriesOption,
    SourceOption,
    StudyOption,
    WindowOption,
    write_png,
)
from medmoe.client.commands.request_options import RequestOptions
from medmoe.client.commands.terminal import as_json
from medmoe.client.options import ExplainOptions
from medmoe.client.transport.address import LOCAL


def explain(
    image: ImageArgument = None,
    question: Annotated[str | None, typer.Option(help="Question whose answer is explained.")] = None,
    answer: Annotated[
        str | None, typer.Option(help="With --question: answer to explain; by default the model's own.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "--labels", help="Explain the likeliest of these labels; repeat it for each."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The one of --label to explain.")] = None,
    grid: Annotated[int | None, typer.Option(min=2, help="Cells along the longer side of the image.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the map over the image as PNG.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum length of the answer in tokens.")] = None,
    source: SourceOption = None,
    study: StudyOption = None,
    series: SeriesOption = None,
    instance: InstanceOption = None,
    window: WindowOption = None,
    frame: FrameOption = None,
    allow_uniform: AllowUniformOption = False,
    modality: ModalityOption = None,
    routing: RoutingOption = False,
    pixels_only: PixelsOnlyOption = False,
    url: UrlOption = LOCAL,
    token_file: TokenFileOption = None,
    timeout: TimeoutOption = 120.0,
    json_: JsonOption = False,
) -> None:
    """Print how much less likely an answer becomes when each part of the image is covered.

    This shows what the model reacts to, not the outline of a finding. Research software, not a medical device.
    """
    if not (question or label):
        raise typer.BadParameter("a question or labels are needed: --question WORDS, or --label CT --label MRI")
    request = RequestOptions(
        source=source,
        study=study,
        series=series,
        instance=instance,
        pixels_only=pixels_only,
        routing=routing,
        json_=json_,
    )
    file, _ = (None, []) if source and image is None else request.split(image)
    options: ExplainOptions = {
        "answer": answer,
        "label": target,
        "grid": grid,
        "overlay": "none" if overlay is None else "image",
        "max_tokens": max_tokens,
        "window": window,
        "frame": frame,
        "allow_uniform": allow_uniform,
        "modality": modality,
        "include_routing": routing,
    }
    with create_client(url, token_file, timeout) as client:
        found = client.explain(request.read(file), question, labels=label or None, **options)
    if overlay is not None and found.overlay is not None:
        write_png(overlay, found.overlay)
    if json_:
        typer.echo(as_json(found))
    else:
        print_map(found)
