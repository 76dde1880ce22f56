"""Hold the parts of the service that answer inference requests."""

from dataclasses import dataclass

from medmoe.server.admission.fair_slots import FairSlots
from medmoe.server.admission.readiness import Readiness
from medmoe.server.admission.slots import Admission
from medmoe.server.engine.base import Engine
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.inference.content_free_scores import ContentFreeScores
from medmoe.server.router_stats.stats import RouterStats
from medmoe.server.served_checkpoint import ServedCheckpoint
from medmoe.server.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceContext:
    """The parts of the service that every route uses to answer about an image."""

    settings: Settings
    checkpoint: ServedCheckpoint
    engine: Engine
    images: ImageIntake
    admission: Admission
    readiness: Readiness
    router_stats: RouterStats
    label_steps: FairSlots
    """Places for the engine requests of classifications."""
    content_free: ContentFreeScores

    def check_question(self, question: str) -> None:
        """Raise InvalidField for a question over the deployment's limit."""
        limit = self.settings.max_question_chars
        if len(question) > limit:
            raise InvalidField(
                f"the question is longer than {limit} characters (MEDMOE_MAX_QUESTION_CHARS)", param="question"
            )
