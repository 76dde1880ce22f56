"""Ask a service about the slices of a series."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from medmoe.client.answers import Mode, SeriesAnswer, SeriesClassification, SeriesEvent, SeriesStarted, SliceDone
from medmoe.client.commands.connection import JsonOption, ServiceOptions, with_option_groups
from medmoe.client.commands.images import (
    AllowUnlikeTrainingOption,
    MaxTokensOption,
    MinConfidenceOption,
    MinLabelMassOption,
    ModalityOption,
    ReportFileOption,
    SeriesOption,
    SourceOption,
    StoreOption,
    StudyOption,
    WindowOption,
    require_other_file,
)
from medmoe.client.commands.request_options import RequestOptions, keep_report, refuse_options, require_several
from medmoe.client.commands.series.output import print_result
from medmoe.client.commands.terminal import as_json, has_progress_bar, note
from medmoe.client.errors import ServiceError
from medmoe.client.images.series import Series, SeriesSource, dicom_files
from medmoe.client.options import AskSeriesOptions, ClassifySeriesOptions, SeriesOptions
from medmoe.model.cli import with_headings

_NUMBERED = re.compile(r"File (\d+): ")
"""Begins an error about one file of a series."""


@with_headings(RequestOptions.HEADINGS)
@with_option_groups()
def series(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILES] [QUESTION]",
            help="Folder of DICOM files, ZIP archive or multi-frame file (none with --source); then the question.",
        ),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Classify with this label; repeat it for each.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="With --label: as in `medmoe classify`.")] = None,
    slices: Annotated[int | None, typer.Option(min=1, help="Number of slices to look at, evenly spread.")] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(
            help="How one result is made of those of the slices: most_confident or majority, with --label mean or max."
        ),
    ] = None,
    finding: Annotated[
        str | None, typer.Option(help="The --label that the series has as soon as one slice shows it.")
    ] = None,
    source: SourceOption = None,
    study: StudyOption = None,
    series: SeriesOption = None,
    report_file: ReportFileOption = None,
    store: StoreOption = None,
    window: WindowOption = None,
    max_tokens: MaxTokensOption = None,
    allow_irregular: Annotated[
        bool, typer.Option("--allow-irregular", help="Take unevenly spaced slices, and those of a tilted gantry.")
    ] = False,
    min_confidence: MinConfidenceOption = None,
    min_label_mass: MinLabelMassOption = None,
    contextual_calibration: Annotated[
        bool,
        typer.Option("--contextual-calibration", help="With --label: as for medmoe classify."),
    ] = False,
    allow_unlike_training: AllowUnlikeTrainingOption = False,
    modality: ModalityOption = None,
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """Ask a running service about evenly spread slices of a series, and print one result and the best slice.

    Research software, not a medical device.
    """
    words = list(arguments or ())
    given, files = _series(words, source=source, study=study, series=series, report_file=report_file)
    if len(words) > 1 or not (words or label):
        raise typer.BadParameter("one question is needed, or labels: --label CT --label MRI")
    if label:
        require_several(label, mode)
        refuse_options({"max_tokens": max_tokens}, "with labels")
    else:
        classified = {"mode": mode, "finding": finding, "min_label_mass": min_label_mass}
        refuse_options(classified | {"contextual_calibration": contextual_calibration or None}, "with a question")
    if finding is not None and finding not in (label or ()):
        raise typer.BadParameter("--finding is one of the labels")
    if store and not source:
        raise typer.BadParameter("--store stores the report on a series of --source")
    shared: SeriesOptions = {
        "slices": slices,
        "aggregate": aggregate,
        "window": window,
        "allow_irregular": allow_irregular,
        "min_confidence": min_confidence,
        "allow_unlike_training": allow_unlike_training,
        "modality": modality,
        "include_report": report_file is not None,
        "store": store,
    }
    # A stream has no report.
    whole = bool(report_file or store)
    with service.client() as client, _file_named(files):
        found: SeriesAnswer | SeriesClassification
        if label:
            options: ClassifySeriesOptions = {
                **shared,
                "question": words[0] if words else None,
                "finding": finding,
                "contextual_calibration": contextual_calibration,
                "min_label_mass": min_label_mass,
            }
            found = (
                client.classify_series(given, label, mode=mode or "likelihood", **options)
                if whole
                else _result(client.stream_classify_series(given, label, mode=mode or "likelihood", **options))
            )
        else:
            asked: AskSeriesOptions = {**shared, "max_tokens": max_tokens}
            found = (
                client.ask_series(given, words[0], **asked)
                if whole
                else _result(client.stream_ask_series(given, words[0], **asked))
            )
    keep_report(report_file, found.report, found.stored)
    if json_:
        typer.echo(as_json(found))
        return
    print_result(found, files)


def _series(
    words: list[str], *, source: str | None, study: str | None, series: str | None, report_file: Path | None
) -> tuple[SeriesSource, list[Path]]:
    """Return the series, taken from the front of `words` unless it is of a source, and its files in their order.

    Raises InvalidInput, typer.BadParameter.
    """
    named = (source, study, series)
    if source and study and series:
        return Series(source=source, study=study, series=series), []
    if any(named):
        raise typer.BadParameter("--source, --study and --series name a series together")
    if not words:
        raise typer.BadParameter("a folder, a ZIP archive or a multi-frame file is needed, or --source")
    path = Path(words.pop(0))
    files = dicom_files(path) if path.is_dir() else []
    if report_file is not None:
        require_other_file(report_file, path, *files)
    return (files, files) if files else (path, [])


@contextmanager
def _file_named(files: list[Path]) -> Iterator[None]:
    """Print the path of the file that an error of the service numbers: names are not sent."""
    try:
        yield
    except ServiceError as error:
        number = _NUMBERED.match(str(error))
        if number is not None and int(number[1]) <= len(files):
            note(f"file {number[1]} is {files[int(number[1]) - 1]}")
        raise


def _result(events: Generator[SeriesEvent, None, None]) -> SeriesAnswer | SeriesClassification:
    """Return the last event; show the progress on a terminal."""
    total = 0
    result: SeriesEvent | None = None
    with closing(events):
        for event in events:
            result = event
            if isinstance(event, SeriesStarted):
                total = len(event.series.sampled)
            if isinstance(event, SliceDone) and has_progress_bar():
                typer.echo(f"\rslice {event.done} of {total}", nl=event.done == total, err=True)
    assert isinstance(result, SeriesAnswer | SeriesClassification)
    return result
