"""Map where an answer comes from: from validated fields to the response of `/v1/explain`.

Each cell of a grid is covered in the image as the model gets it, and the answer's exact likelihood is measured again,
as `/v1/classify` measures that of a label. No attention is read, so a map means the same for every backbone.
"""

import asyncio
import secrets
from contextlib import AbstractAsyncContextManager

import numpy as np

from medmoe.server.admission.deadline import Deadline
from medmoe.server.engine.scoring.label_scorer import LabelScore, LabelScorer, ScoringRequest
from medmoe.server.errors import InvalidField
from medmoe.server.imaging.image import DecodedImage, image_id
from medmoe.server.imaging.render import png_data_url
from medmoe.server.inference.classify import count_routing, count_tokens
from medmoe.server.inference.confidence import compare_with_training, is_flagged
from medmoe.server.inference.explain.context import ExplainContext
from medmoe.server.inference.explain.occlusion import PATCH, Grid, Occluder, importance
from medmoe.server.inference.explain.overlay import draw_layer, over
from medmoe.server.inference.explain.target import Plan, Target, generate_target, likeliest, plan_target
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.inference import SentImage
from medmoe.server.schemas.views.explain import ExplainFields, ExplainProvenance, ExplainResponse, Region
from medmoe.server.tasks import run_all

ROUTE = "explain"
_FAINTEST_SCALE = 0.1
"""Nats; drops this small change a probability by a tenth at most."""


async def explain_image(
    context: ExplainContext, fields: ExplainFields, *, image: SentImage, deadline: Deadline, record: RequestRecord
) -> ExplainResponse:
    """Return the map of `image`, which holds one slot. Cancelling it aborts every engine request.

    Raises InvalidField, PromptError, Overloaded, DeadlineExceeded, the image errors and the engine errors.
    """
    inference = context.inference
    plan = plan_target(inference, fields)
    async with (
        context.places.place(deadline=deadline, record=record),
        inference.admission.slot(deadline=deadline, record=record),
    ):
        decoded, frame = await inference.images.read_and_render(image, fields, deadline=deadline, record=record)
        placement = context.processor.placement(frame.size)
        longer = fields.grid or inference.settings.explain_grid
        grid = Grid.of(placement.content, longer)
        with record.stage("engine"), inference.readiness.watch():
            async with deadline.guard():
                measured = await _Measurement(context, plan, decoded, grid, record=record).run()
        region = Region(**dict(zip(("left", "top", "right", "bottom"), placement.seen, strict=True)))
        shown = importance(measured.drops)
        scale = max(float(np.abs(shown).max()), _FAINTEST_SCALE)
        overlay = await asyncio.to_thread(_overlay, fields, shown, region, frame, scale)
    routing = count_routing(inference, (measured.whole,), fields, route=ROUTE)
    unlike_training = compare_with_training(
        measured.whole.root.unlike_training, inference.checkpoint.training_reference
    )
    record.note_unlike_training(unlike_training)
    record.note_answer(calibrated=False, abstained=is_flagged(unlike_training))
    checkpoint = inference.checkpoint
    return ExplainResponse(
        id=measured.request_id,
        model=checkpoint.config.name,
        answer=measured.target.text,
        chosen_by="model" if plan.chosen is None else "request",
        log_likelihood=measured.log_likelihood,
        rows=grid.rows,
        columns=grid.columns,
        region=region,
        drops=tuple(tuple(row) for row in measured.drops.tolist()),
        importance=tuple(tuple(row) for row in shown.tolist()),
        scale=scale,
        engine_requests=measured.engine_requests,
        overlay=overlay,
        unlike_training=unlike_training,
        timings=record.timings(),
        provenance=ExplainProvenance(
            **checkpoint.provenance(decoded, dtype=inference.engine.dtype),
            grid=longer,
            patch=PATCH,
            fill="blur",
        ),
        routing=routing,
    )


class _Measurement:
    """Asks the engine about the whole image, then about the image with each cell covered."""

    target: Target
    whole: LabelScore
    """Score of the target with the whole image."""
    log_likelihood: float
    drops: np.ndarray
    """[rows, columns], nats."""
    engine_requests = 0

    def __init__(
        self, context: ExplainContext, plan: Plan, decoded: DecodedImage, grid: Grid, *, record: RequestRecord
    ) -> None:
        self._context = context
        self._plan = plan
        self._decoded = decoded
        self._grid = grid
        self._record = record
        self._occluder = Occluder(decoded.image, grid)
        self.request_id = f"{ROUTE}-{secrets.token_hex(16)}"
        self._scorer = LabelScorer(context.inference.engine, hold=self._hold)

    async def run(self) -> "_Measurement":
        """Return it with its results. Raises InvalidField for too many engine requests, and what the engine raises."""
        plan = self._plan
        if plan.paths:
            if plan.chosen is not None:
                self._check_steps(plan.paths[plan.chosen])
            self.whole = await self._score(ScoringRequest(prompt_ids=plan.prompt_ids, paths=plan.paths), None)
            index = likeliest(self.whole.log_likelihoods) if plan.chosen is None else plan.chosen
            self.target = Target(text=plan.texts[index], path=plan.paths[index])
            self._check_steps(self.target.path)
        else:
            self.target = await generate_target(
                self._context.inference,
                plan,
                self._decoded,
                request_id=self.request_id,
                cache_salt=self._record.cache_salt,
            )
            self.engine_requests += 1
            self._check_steps(self.target.path)
            self.whole, index = await self._score(self._asked, None), 0
        self.log_likelihood = self.whole.log_likelihoods[index]
        scores = await run_all(self._cover(row, column) for row, column in self._grid.cells)
        covered = np.array([score.log_likelihoods[0] for score in scores])
        self.drops = (self.log_likelihood - covered).reshape(self._grid.rows, self._grid.columns)
        count_tokens(self._record, [self.whole, *scores])
        return self

    @property
    def _asked(self) -> ScoringRequest:
        return ScoringRequest(prompt_ids=self._plan.prompt_ids, paths=(self.target.path,))

    def _check_steps(self, path: tuple[int, ...]) -> None:
        """Raise InvalidField where the cells need too many engine requests for an answer of these tokens."""
        cells, limit = len(self._grid.cells), self._context.inference.settings.max_explain_steps
        if cells * len(path) > limit:
            raise InvalidField(
                f"{cells} cells and an answer of {len(path)} tokens take {cells * len(path)} engine requests, over "
                f"{limit} (MEDMOE_MAX_EXPLAIN_STEPS); ask for a coarser grid or a shorter answer",
                param="grid",
            )

    async def _cover(self, row: int, column: int) -> LabelScore:
        async with self._context.cells.slot(self.request_id):
            return await self._score(self._asked, (row, column))

    def _hold(self) -> AbstractAsyncContextManager[None]:
        """Return what is entered around each engine request."""
        self.engine_requests += 1
        return self._context.inference.label_steps.slot(self.request_id)

    async def _score(self, asked: ScoringRequest, cell: tuple[int, int] | None) -> LabelScore:
        """Return the likelihoods with a cell covered, or none."""
        image, id_ = self._decoded.array, self._decoded.image_id
        if cell is not None:
            covered = await asyncio.to_thread(self._occluder.cover, *cell)
            image, id_ = np.asarray(covered), image_id(covered.size, covered.tobytes())
        (score,) = await self._scorer.score(
            (asked,),
            image=image,
            image_id=id_,
            request_id=self.request_id if cell is None else "{}-{}-{}".format(self.request_id, *cell),
            cache_salt=self._record.cache_salt,
        )
        return score


def _overlay(fields: ExplainFields, shown: np.ndarray, region: Region, frame: DecodedImage, scale: float) -> str | None:
    if fields.overlay == "none":
        return None
    layer = draw_layer(shown, region, size=frame.size, scale=scale)
    return png_data_url(layer if fields.overlay == "layer" else over(frame.image, layer))
