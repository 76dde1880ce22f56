"""Ask a started engine one question before it answers clients."""

import io

from PIL import Image

from medmoe.server.admission.deadline import Deadline
from medmoe.server.admission.fair_slots import FairSlots
from medmoe.server.admission.slots import Admission
from medmoe.server.engine.base import Engine
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.inference.context import InferenceContext
from medmoe.server.inference.vqa import answer
from medmoe.server.models.served_model import ServedModel
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.router_stats.stats import RouterStats
from medmoe.server.schemas.vqa import VQAFields

_MIN_SIDE = 64
_TIMEOUT_SECONDS = 600.0
"""An engine may compile during its first answer, which no client's deadline should have to cover."""


async def warm_up(model: ServedModel, engine: Engine) -> None:
    """Ask `engine` one question, outside admission, statistics, metrics, cache and quarantine.

    Raises what `answer` raises.
    """
    context = InferenceContext(
        settings=model.settings,
        checkpoint=model.checkpoint,
        engine=engine,
        images=ImageIntake(model.decoders, cache=ImageCache(model.decoders, most=0, count=lambda _: None)),
        admission=Admission(max_concurrent=1, max_queued=0),
        readiness=model.readiness,
        router_stats=RouterStats(model.checkpoint.config),
        label_steps=FairSlots(1),
        content_free=model.inference.content_free,
    )
    pieces = answer(
        context,
        VQAFields(question="What is shown?", max_tokens=min(2, model.settings.max_tokens), allow_uniform=True),
        image=_black_png(side=max(_MIN_SIDE, model.settings.min_image_side)),
        deadline=Deadline(_TIMEOUT_SECONDS),
        record=RequestRecord(request_id="warm-up", method="POST"),
    )
    async for _ in pieces:
        pass


def _black_png(*, side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, format="PNG")
    return file.getvalue()
