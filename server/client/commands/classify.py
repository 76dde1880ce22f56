"""`medmoe classify IMAGE LABEL...`: how likely a running service finds each label."""

from typing import Annotated

import typer

from medmoe.client.answers.classify import (
    AnyClassification,
    LabelPresence,
    LabelProbability,
    Mode,
    MultiLabelClassification,
)
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
from medmoe.client.commands.terminal import as_json, note, table
from medmoe.client.options import ClassifyOptions
from medmoe.client.transport.address import LOCAL

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def classify(
    image: ImageArgument,
    labels: Annotated[list[str], typer.Argument(metavar="LABEL...", help="At least two, but for multi_label.")],
    mode: Annotated[Mode, typer.Option(help="What is compared; README and /docs explain.")] = "likelihood",
    question: Annotated[str | None, typer.Option(help="Instead of the checkpoint's own.")] = None,
    length_normalized: Annotated[
        bool, typer.Option("--length-normalized", help="Mode likelihood: compare by token.")
    ] = False,
    permutations: Annotated[int | None, typer.Option(min=1, help="Mode choice: at most so many orders.")] = None,
    window: Window = None,
    frame: Frame = None,
    min_confidence: MinConfidence = None,
    modality: Modality = None,
    routing: Routing = False,
    pixels_only: PixelsOnly = False,
    url: Url = LOCAL,
    token_file: TokenFile = None,
    timeout: Timeout = 120.0,
    json_: AsJson = False,
) -> None:
    """Ask a running service how likely each label is, the likeliest first.

    Research software, not a medical device.
    """
    if routing and not json_:
        raise typer.BadParameter("--routing is printed with --json")
    options: ClassifyOptions = {
        "question": question,
        "length_normalized": length_normalized,
        "permutations": permutations,
        "window": window,
        "frame": frame,
        "min_confidence": min_confidence,
        "modality": modality,
        "include_routing": routing,
    }
    with client_of(url, token_file, timeout) as client:
        found = client.classify(picture(image, pixels_only=pixels_only), labels, mode=mode, **options)
    if json_:
        typer.echo(as_json(found))
        return
    typer.echo(_table(found))
    note(_told(found))


def _table(found: AnyClassification) -> str:
    best: list[LabelProbability | LabelPresence] = sorted(found.probabilities, key=lambda one: -one.probability)
    rows = [(one.label, f"{one.probability:.3f}") for one in best]
    if not isinstance(found, MultiLabelClassification):
        return table(("label", "probability"), rows)
    present = {one.label: "yes" if one.present else "no" for one in found.probabilities}
    return table(("label", "probability", "present"), [(*row, present[row[0]]) for row in rows])


def _told(found: AnyClassification) -> str:
    told = ["calibrated" if found.calibration is not None else "the model's own probabilities, not calibrated"]
    if not isinstance(found, MultiLabelClassification):
        told.append(f"label mass {found.label_mass:.3g}")
    if found.abstained:
        told.append("ABSTAINED: not to be relied on")
    return "; ".join(told)
