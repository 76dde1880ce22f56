"""Ask about slices of a series, a few at once."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol, TypeVar

from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import UniformImage
from medmoe.server.imaging.series.volume import PlacedSlice
from medmoe.server.imaging.series_intake import OpenSeries, SeriesIntake, numbered
from medmoe.server.inference.classify import classify_in_slot, plan_classification
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.series.sampled_series import SampledSeries
from medmoe.server.inference.vqa import answer_in_slot, plan_answer, whole_answer
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.classify import ClassifyFields
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.series import AnsweredSlice, ClassifiedSlice, SeriesFields
from medmoe.server.schemas.vqa import VQAFields

ROUTE = "series"
AskedSlice = AnsweredSlice | ClassifiedSlice
Slice = TypeVar("Slice")
Made = TypeVar("Made", covariant=True)
"""What is made of a slice."""
_AT_ONCE = 4
"""Slices of one series; more would keep the engine from other requests, whose slots it does not hold."""


class Asker(Protocol[Made]):
    """Asks about one slice: a question, or labels."""

    async def ask(
        self, image: bytes, shown: ImageFields, place: dict[str, Any], *, deadline: Deadline, record: RequestRecord
    ) -> Made:
        """Return what is made of the slice at `place`, also where it comes out as one shade."""


_OF_QUESTIONS = ("question", "max_tokens", "min_confidence", "allow_unlike_training", "modality")
"""Fields of a series that are those of `/v1/vqa`."""


class QuestionAsker:
    """Asks the question of a series."""

    def __init__(self, context: InferenceContext, fields: SeriesFields) -> None:
        """Raise InvalidField, PromptError."""
        self._context = context
        self._fields = {name: getattr(fields, name) for name in _OF_QUESTIONS}
        self._plan = plan_answer(context, VQAFields(**self._fields))

    async def ask(
        self, image: bytes, shown: ImageFields, place: dict[str, Any], *, deadline: Deadline, record: RequestRecord
    ) -> AnsweredSlice:
        """Return the slice at `place` with its answer, without one where it comes out as one shade.

        Raises the other errors of `answer_in_slot`.
        """
        fields = VQAFields(**self._fields, **shown.model_dump())
        pieces = answer_in_slot(
            self._context, fields, self._plan, image=image, deadline=deadline, record=record, route=ROUTE
        )
        try:
            return AnsweredSlice(**place, uniform=False, answer=await whole_answer(pieces))
        except UniformImage:
            return AnsweredSlice(**place, uniform=True, answer=None)


_OF_LABELS = (
    "question",
    "labels",
    "mode",
    "contextual_calibration",
    "min_confidence",
    "min_label_mass",
    "allow_unlike_training",
    "modality",
)
"""Fields of a series that are those of `/v1/classify`."""


class LabelAsker:
    """Classifies with the labels of a series."""

    def __init__(self, context: InferenceContext, fields: SeriesFields) -> None:
        """Raise InvalidField, PromptError."""
        self._context = context
        self._fields = {name: getattr(fields, name) for name in _OF_LABELS}
        _, self._prompts = plan_classification(context, ClassifyFields(**self._fields))

    async def ask(
        self, image: bytes, shown: ImageFields, place: dict[str, Any], *, deadline: Deadline, record: RequestRecord
    ) -> ClassifiedSlice:
        """Return the slice at `place`, classified unless it comes out as one shade.

        Raises the other errors of `classify_in_slot`.
        """
        fields = ClassifyFields(**self._fields, **shown.model_dump())
        asked = ((fields, self._prompts),)
        try:
            (found,) = await classify_in_slot(
                self._context, asked, image=image, deadline=deadline, record=record, route=ROUTE
            )
            return ClassifiedSlice(**place, uniform=False, classification=found)
        except UniformImage:
            return ClassifiedSlice(**place, uniform=True, classification=None)


async def ask_slices(
    intake: SeriesIntake,
    asker: Asker[Slice],
    found: SampledSeries,
    *,
    deadline: Deadline,
    record: RequestRecord,
) -> AsyncGenerator[Slice, None]:
    """Yield the slices in the order in which they are answered. Closing the iterator aborts all of them.

    Raises what SeriesIntake.read and Asker.ask raise, with the number of the file.
    """
    limit = asyncio.Semaphore(_AT_ONCE)
    series = found.files

    async def ask(index: int) -> Slice:
        slice_ = found.volume.slices[index]
        own = record.part()
        async with limit:
            try:
                with numbered(series.places[slice_.file]):
                    data = await intake.read(series, slice_.file, deadline=deadline, record=own)
                    shown = ImageFields(window=found.description.window, frame=slice_.frame)
                    place = _place(index, slice_, series)
                    return await asker.ask(data, shown, place, deadline=deadline, record=own)
            finally:
                record.add(own)

    # No task group: its cancellation would reach the iterating task, between two slices.
    tasks = [asyncio.create_task(ask(index)) for index in found.sampled]
    pending = set(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _place(index: int, slice_: PlacedSlice, series: OpenSeries) -> dict[str, Any]:
    return {
        "index": index,
        "position": slice_.position,
        "instance": series.files[slice_.file].uids.instance,
        "file": series.places[slice_.file],
        "frame": slice_.frame,
    }
