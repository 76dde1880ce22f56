"""Ask a service where in the image an answer comes from."""

from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.commands.connection import ServiceOptions, with_option_groups
from medmoe.client.commands.explain.output import print_map
from medmoe.client.commands.images import ImageArgument, MaxTokensOption, require_other_file, require_png, write_base64
from medmoe.client.commands.request_options import ABSTENTION, REPORT, RequestOptions, refuse_options, require_several
from medmoe.client.commands.terminal import as_json
from medmoe.client.options import ExplainOptions


@with_option_groups(without=REPORT | ABSTENTION)
def explain(
    image: ImageArgument = None,
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", help="Question whose answer is explained; optional with --label."),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Answer to explain, without --label; by default the model's own.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "--labels", help="Explain the likeliest of these labels; repeat it for each."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The one of --label to explain.")] = None,
    grid: Annotated[int | None, typer.Option(min=2, help="Cells along the longer side of the image.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the map over the image as PNG.")] = None,
    max_tokens: MaxTokensOption = None,
    *,
    request: RequestOptions,
    service: ServiceOptions,
) -> None:
    """Print how much less likely an answer becomes when each part of the image is covered.

    This shows what the model reacts to, not the outline of a finding. Research software, not a medical device.
    """
    file, words = request.split(image, question)
    if len(words) > 1 or not (words or label):
        raise typer.BadParameter("an image and a question or --label are needed; with --source no file")
    if label:
        require_several(label)
        refuse_options({"answer": answer, "max_tokens": max_tokens}, "with labels")
    else:
        refuse_options({"target": target}, "without --label")
    if answer is not None:
        refuse_options({"max_tokens": max_tokens}, "with --answer")
    if target is not None and target not in (label or ()):
        raise typer.BadParameter("--target is one of the labels")
    if overlay is not None:
        require_png(overlay)
        require_other_file(overlay, *([] if file is None else [file]))
    options: ExplainOptions = {
        **request.image_fields(),
        "answer": answer,
        "label": target,
        "grid": grid,
        "overlay": None if overlay is None else "image",
        "max_tokens": max_tokens,
    }
    with service.client() as client:
        found = client.explain(request.read(file), *words, labels=label or None, **options)
    if overlay is not None and found.overlay is not None:
        write_base64(overlay, found.overlay)
    if request.json_:
        typer.echo(as_json(found))
    else:
        print_map(found)
