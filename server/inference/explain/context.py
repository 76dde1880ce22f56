"""Hold the parts of the service that answer requests for a map."""

from dataclasses import dataclass

from medmoe.model.image_processor import ImageProcessor
from medmoe.server.admission.costly_places import CostlyPlaces
from medmoe.server.admission.fair_slots import FairSlots
from medmoe.server.inference.context import InferenceContext


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainContext:
    """The parts of the service that `/v1/explain` uses to answer a request."""

    inference: InferenceContext
    processor: ImageProcessor
    places: CostlyPlaces
    """Places of maps, beside the slots of all requests: each asks the engine many times."""
    cells: FairSlots
    """Covered images in the engine at once, of all maps together; the maps take turns. More would keep the engine from
    other requests."""
