"""The question that an engine must have answered before it may answer others.

Apart from the supervisor because it is asked at every start, exactly as a client's is, and leaves no trace: neither in
the statistics, nor among the requests inside.
"""

import copy
import io

from PIL import Image

from medmoe.server.admission.slots import Admission, Deadline
from medmoe.server.engine.base import Engine
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.inference.vqa import answer
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.vqa import VQAFields
from medmoe.server.state import State

_SIDE = 64
_PATIENCE = 600.0
"""Seconds: an engine may compile during its first answer, which no client's deadline should have to cover."""


async def warm_up(state: State, engine: Engine) -> None:
    """Ask `engine`, started but not yet the service's own, one question. Raises what a client's question raises."""
    picture = io.BytesIO()
    side = max(_SIDE, state.settings.min_image_side)
    Image.new("RGB", (side, side)).save(picture, format="PNG")
    pieces = answer(
        _rehearsal(state, engine),
        VQAFields(question="What is shown?", max_tokens=min(2, state.settings.max_tokens)),
        image=picture.getvalue(),
        deadline=Deadline(_PATIENCE),
        record=RequestRecord(request_id="warm-up", method="POST"),
    )
    async for _ in pieces:
        pass


def _rehearsal(state: State, engine: Engine) -> State:
    """`state` as it would be with `engine`, and with what counts or keeps requests replaced."""
    rehearsal = copy.copy(state)
    # Its own quarantine too: a warm-up that an engine dies of must be asked again of the next one.
    rehearsal.engine = RestartableEngine(engine)
    rehearsal.admission = Admission(max_concurrent=1, max_queued=0)
    rehearsal.images = ImageCache(state.decoders, most=0, count=state.metrics.picture)
    rehearsal.router_stats = copy.deepcopy(state.router_stats)
    return rehearsal
