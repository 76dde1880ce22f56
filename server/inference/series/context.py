"""Hold the parts of the service that answer requests about a series."""

from dataclasses import dataclass

from medmoe.server.admission.costly_places import CostlyPlaces
from medmoe.server.imaging.series_intake import SeriesIntake
from medmoe.server.inference.context import InferenceContext


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesContext:
    """The parts of the service that `/v1/series` uses to answer a request."""

    inference: InferenceContext
    intake: SeriesIntake
    places: CostlyPlaces
    """Places of series, beside the slots of all requests: each may hold many files."""
