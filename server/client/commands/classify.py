"""`medmoe classify`: ask a service how likely each label is."""

from typing import Annotated

import typer

from medmoe.client.answers import AnyClassification, Classification, Mode, MultiLabelClassification
from medmoe.client.answers.classify import LabelPresence, LabelProbability
from medmoe.client.commands.connection import ServiceOptions, with_option_groups
from medmoe.client.commands.images import ImageArgument, MinLabelMassOption
from medmoe.client.commands.request_options import RequestOptions, keep_report
from medmoe.client.commands.terminal import ABSTAINED, as_json, note, note_unlike_training, percent, safe, table
from medmoe.client.options import ClassifyOptions

_LOW_LABEL_MASS = 0.01
"""Probability of all labels together below which the ranking means little."""


@with_option_groups()
def classify(
    image: ImageArgument = None,
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="LABEL", help="At least two labels; one is enough for multi_label.")
    ] = None,
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
    contextual_calibration: Annotated[
        bool,
        typer.Option(
            "--contextual-calibration",
            help="Mode likelihood: divide by each label's likelihood on images that show nothing; for labels that the "
            "checkpoint was not trained on.",
        ),
    ] = False,
    permutations: Annotated[int | None, typer.Option(min=1, help="Mode choice: maximum number of orders.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Also print labels that hold the true one with probability 1 - alpha."),
    ] = None,
    min_label_mass: MinLabelMassOption = None,
    *,
    request: RequestOptions,
    service: ServiceOptions,
) -> None:
    """Ask a running service how likely each label is, and print the most likely first.

    Research software, not a medical device.
    """
    file, labels = request.split(image, *(labels or ()))
    if not labels:
        raise typer.BadParameter("labels are needed, each as an argument of its own: CT MRI X-ray")
    if len(labels) == 1 and mode != "multi_label":
        apart = " ".join(part.strip() for part in labels[0].split(",") if part.strip())
        meant = f"did you mean {apart}? " if "," in labels[0] else ""
        raise typer.BadParameter(
            f"one label leaves nothing to choose from; {meant}each label is an argument of its own; --mode multi_label "
            "takes a single one"
        )
    options: ClassifyOptions = {
        **request.fields(),
        "question": question,
        "length_normalized": length_normalized,
        "contextual_calibration": contextual_calibration,
        "permutations": permutations,
        "alpha": alpha,
        "min_label_mass": min_label_mass,
    }
    with service.client() as client:
        found = client.classify(request.read(file), labels, mode=mode, **options)
    keep_report(request.report_file, found.report, found.stored)
    if request.json_:
        typer.echo(as_json(found))
        return
    typer.echo(_table(found))
    if isinstance(found, Classification) and found.prediction_set is not None:
        chosen = found.prediction_set
        typer.echo(safe(f"{percent(1 - chosen.alpha)} prediction set: {', '.join(chosen.labels)}"))
    note(_summary(found))
    note_unlike_training(found.unlike_training)
    if not isinstance(found, MultiLabelClassification) and found.label_mass < _LOW_LABEL_MASS:
        can_compare = isinstance(found, Classification) and not found.provenance.contextual_calibration
        note(
            "WARNING: the model finds none of these labels likely, so their ranking means little; see what `medmoe "
            "ask` answers, and classify with its words as labels and the same --question"
            + (", or compare with --contextual-calibration" if can_compare else "")
        )


def _table(found: AnyClassification) -> str:
    best: list[LabelProbability | LabelPresence] = sorted(found.probabilities, key=lambda one: -one.probability)
    rows = [(one.label, f"{one.probability:.3f}") for one in best]
    if not isinstance(found, MultiLabelClassification):
        return table(("label", "probability"), rows)
    present = {one.label: "yes" if one.present else "no" for one in found.probabilities}
    return table(("label", "probability", "present"), [(*row, present[row[0]]) for row in rows])


def _summary(found: AnyClassification) -> str:
    notes = [_kind(found)]
    if not isinstance(found, MultiLabelClassification):
        notes.append(f"label mass {found.label_mass:.3g}")
    if found.abstained:
        notes.append(ABSTAINED)
    return "; ".join(notes)


def _kind(found: AnyClassification) -> str:
    if found.calibration is not None:
        return "calibrated"
    if isinstance(found, Classification) and found.provenance.contextual_calibration:
        return "compared with images that show nothing, not calibrated on data"
    return "the model's own probabilities, not calibrated"
