"""Define the options that `ask`, `classify`, `decide` and `explain` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import typer

from medmoe.client.answers import Mode, StoredReport
from medmoe.client.commands.connection import JsonOption
from medmoe.client.commands.images import (
    AllowUniformOption,
    AllowUnlikeTrainingOption,
    FrameOption,
    InstanceOption,
    MinConfidenceOption,
    ModalityOption,
    PixelsOnlyOption,
    ReportFileOption,
    RoutingOption,
    SeriesOption,
    SourceOption,
    StoreOption,
    StudyOption,
    WindowOption,
    read_image,
    require_other_file,
    write_base64,
)
from medmoe.client.commands.terminal import note
from medmoe.client.images.image import Image
from medmoe.client.images.instance import Instance
from medmoe.client.options import AnswerOptions, ImageOptions, ReportOptions

SOURCE = frozenset({"source", "study", "series", "instance"})
REPORT = frozenset({"report_file", "store"})
ABSTENTION = frozenset({"min_confidence", "allow_unlike_training"})
"""Options that a command may be without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """Hold the options of a request about one image."""

    HEADINGS: ClassVar = {
        "Image": "window frame allow_uniform pixels_only modality",
        "Image of a DICOMweb source": "source study series instance",
        "Structured report": "report_file store",
        "Abstention": "min_confidence min_label_mass allow_unlike_training",
    }
    """For `with_headings`."""

    window: WindowOption = None
    frame: FrameOption = None
    allow_uniform: AllowUniformOption = False
    pixels_only: PixelsOnlyOption = False
    modality: ModalityOption = None
    source: SourceOption = None
    study: StudyOption = None
    series: SeriesOption = None
    instance: InstanceOption = None
    report_file: ReportFileOption = None
    store: StoreOption = None
    min_confidence: MinConfidenceOption = None
    allow_unlike_training: AllowUnlikeTrainingOption = False
    routing: RoutingOption = False
    json_: JsonOption = False

    def __post_init__(self) -> None:
        """Raise typer.BadParameter for options that exclude each other."""
        if self.routing and not self.json_:
            raise typer.BadParameter("--routing is printed with --json")
        named = (self.source, self.study, self.series, self.instance)
        if any(named) and not all(named):
            raise typer.BadParameter("--source, --study, --series and --instance name an image together")
        if self.store and not self.source:
            raise typer.BadParameter("--store stores the report on an image of --source")
        if self.source and self.pixels_only:
            raise typer.BadParameter("--pixels-only changes a file before it is sent; the service fetches this image")

    def image_fields(self) -> ImageOptions:
        """Return what the service is told about the image."""
        return {
            "window": self.window,
            "frame": self.frame,
            "allow_uniform": self.allow_uniform,
            "modality": self.modality,
            "include_routing": self.routing,
        }

    def answer_fields(self) -> AnswerOptions:
        """Return `image_fields` and when to abstain."""
        return {
            **self.image_fields(),
            "min_confidence": self.min_confidence,
            "allow_unlike_training": self.allow_unlike_training,
        }

    def fields(self) -> ReportOptions:
        """Return all options that the service is sent."""
        return {**self.answer_fields(), "include_report": self.report_file is not None, "store": self.store}

    def split(self, *arguments: str | None) -> tuple[str | None, list[str]]:
        """Return the image's file and the arguments after it; with --source no argument is a file.

        Raises typer.BadParameter without an image, and where its file would become the report.
        """
        given = [argument for argument in arguments if argument is not None]
        if self.source:
            return None, given
        if not given:
            raise typer.BadParameter("an image is needed: a file, or --source")
        if self.report_file is not None:
            require_other_file(self.report_file, given[0])
        return given[0], given[1:]

    def read(self, name: str | None) -> Image | Instance:
        """Return the instance of --source, or read a file, or standard input if `name` is `-`. Raises InvalidInput."""
        if name is not None:
            return read_image(name, pixels_only=self.pixels_only, frame=self.frame)
        assert self.source
        assert self.study
        assert self.series
        assert self.instance
        return Instance(source=self.source, study=self.study, series=self.series, instance=self.instance)


def keep_report(file: Path | None, report: str | None, stored: StoredReport | None) -> None:
    """Tell where --store has put the report of an answer, and write it to `file`. Raises InvalidInput."""
    if stored is not None:
        note(f"report stored in {stored.source}: series {stored.series}, instance {stored.instance}")
    if file is not None and report is not None:
        write_base64(file, report)


def require_several(labels: Sequence[str], mode: Mode | None = None) -> None:
    """Raise typer.BadParameter for a single --label, unless `mode` takes it."""
    if len(labels) == 1 and mode != "multi_label":
        raise typer.BadParameter("one label leaves nothing to choose from; repeat --label for each")


def refuse_options(values: Mapping[str, object], condition: str) -> None:
    """Raise typer.BadParameter for options with a value under a `condition` such as `with labels`, by Python names."""
    given = [f"--{name.replace('_', '-')}" for name, value in values.items() if value is not None]
    if given:
        raise typer.BadParameter(f"{' and '.join(given)} cannot be used {condition}")


def refuse_given(context: typer.Context, names: str, condition: str) -> None:
    """Refuse like `refuse_options`, by names with spaces between them; options with their defaults are not given."""
    sources = {name: context.get_parameter_source(name) for name in names.split()}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    refuse_options(dict.fromkeys(given, True), condition)
