"""`medmoe classify`: ask a service how likely each label is."""

from typing import Annotated

import typer

from medmoe.client.answers import AnyClassification, Mode, MultiLabelClassification
from medmoe.client.answers.classify import LabelPresence, LabelProbability
from medmoe.client.commands.connection import JsonOption, TimeoutOption, TokenFileOption, UrlOption, create_client
from medmoe.client.commands.images import (
    FrameOption,
    ImageArgument,
    MinConfidenceOption,
    ModalityOption,
    PixelsOnlyOption,
    RoutingOption,
    WindowOption,
    image_options,
    read_image,
)
from medmoe.client.commands.terminal import ABSTAINED, as_json, note, table
from medmoe.client.options import ClassifyOptions
from medmoe.client.transport.address import LOCAL

_LOW_LABEL_MASS = 0.01
"""Probability of all labels together below which the ranking means little."""


def classify(
    image: ImageArgument,
    labels: Annotated[
        list[str], typer.Argument(metavar="LABEL...", help="At least two labels; one is enough for multi_label.")
    ],
    mode: Annotated[
        Mode,
        typer.Option(
            help="likelihood compares the labels as answers, choice as lettered options, multi_label asks yes or no "
            "about each."
        ),
    ] = "likelihood",
    question: Annotated[str | None, typer.Option(help="Question that replaces the checkpoint's own.")] = None,
    length_normalized: Annotated[
        bool, typer.Option("--length-normalized", help="Mode likelihood: divide by the number of tokens.")
    ] = False,
    permutations: Annotated[int | None, typer.Option(min=1, help="Mode choice: maximum number of orders.")] = None,
    window: WindowOption = None,
    frame: FrameOption = None,
    min_confidence: MinConfidenceOption = None,
    modality: ModalityOption = None,
    routing: RoutingOption = False,
    pixels_only: PixelsOnlyOption = False,
    url: UrlOption = LOCAL,
    token_file: TokenFileOption = None,
    timeout: TimeoutOption = 120.0,
    json_: JsonOption = False,
) -> None:
    """Ask a running service how likely each label is, and print the most likely first.

    Research software, not a medical device.
    """
    if len(labels) == 1 and mode != "multi_label":
        raise typer.BadParameter(
            "one label leaves nothing to choose from; give each label as an argument of its own (CT MRI X-ray), or use "
            "--mode multi_label"
        )
    common = image_options(
        window=window, frame=frame, min_confidence=min_confidence, modality=modality, routing=routing, json_=json_
    )
    options: ClassifyOptions = {
        **common,
        "question": question,
        "length_normalized": length_normalized,
        "permutations": permutations,
    }
    with create_client(url, token_file, timeout) as client:
        found = client.classify(read_image(image, pixels_only=pixels_only), labels, mode=mode, **options)
    if json_:
        typer.echo(as_json(found))
        return
    typer.echo(_table(found))
    note(_summary(found))
    if not isinstance(found, MultiLabelClassification) and found.label_mass < _LOW_LABEL_MASS:
        note(
            f"WARNING: label mass {found.label_mass:.2g}: the model finds none of these labels likely, so their "
            "ranking means little"
        )


def _table(found: AnyClassification) -> str:
    best: list[LabelProbability | LabelPresence] = sorted(found.probabilities, key=lambda one: -one.probability)
    rows = [(one.label, f"{one.probability:.3f}") for one in best]
    if not isinstance(found, MultiLabelClassification):
        return table(("label", "probability"), rows)
    present = {one.label: "yes" if one.present else "no" for one in found.probabilities}
    return table(("label", "probability", "present"), [(*row, present[row[0]]) for row in rows])


def _summary(found: AnyClassification) -> str:
    notes = ["calibrated" if found.calibration is not None else "the model's own probabilities, not calibrated"]
    if not isinstance(found, MultiLabelClassification):
        notes.append(f"label mass {found.label_mass:.3g}")
    if found.abstained:
        notes.append(ABSTAINED)
    return "; ".join(notes)
