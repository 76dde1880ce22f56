"""Count the tokens that each expert gets, by layer, kind of token, route and stated modality.

Only MoE layers are counted: the engine reports dense layers as zeros.
"""

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.routing_reference import RoutingReference
from medmoe.server.errors import InvalidField
from medmoe.server.router_stats.drift import routing_drift
from medmoe.server.router_stats.sliding_window import LONGEST_SECONDS, Counts, SlidingWindow
from medmoe.server.schemas.inference import LayerRouting, Routing
from medmoe.server.schemas.router_stats import ExpertLoad, LayerLoad, RouterStatsResponse, RoutingDrift

Kind = Literal["image", "question", "answer"]
KINDS: tuple[Kind, ...] = ("image", "question", "answer")

UNSTATED = "unstated"
"""Modality of requests that state none."""
_COMMON_MODALITIES = (
    "CT",
    "MRI",
    "X-ray",
    "mammography",
    "ultrasound",
    "PET",
    "pathology",
    "microscopy",
    "dermoscopy",
    "endoscopy",
    "fundus photography",
    "OCT",
    "other",
)


class RouterStats:
    """Token counts [kind, MoE layer, expert], K, L, E in the names below. Use it on the event loop's thread."""

    def __init__(self, config: MedMoEConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and never goes back."""
        self.reference: RoutingReference | None = None
        """The checkpoint's routing reference; set once the weights are hashed."""
        self._config = config
        self._layers = config.text_config.moe_layers
        self._experts = config.text_config.num_experts
        # A number for each kind, layer and expert: numpy counts numbers many times as fast as it adds at indices.
        self._shape = len(KINDS), len(self._layers), self._experts
        self._first_KL = np.arange(0, math.prod(self._shape), self._experts).reshape(self._shape[:2])
        # The checkpoint's spelling wins.
        self._modalities = {name.casefold(): name for name in (*_COMMON_MODALITIES, *config.expert_domains)}
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget all counts and begin anew."""
        self.since = datetime.now(tz=UTC)
        """Time at which counting began."""
        self._lifetime = Counts()
        self._recent = SlidingWindow(clock=self._clock)

    def require_modality(self, stated: str | None) -> str:
        """Return the name under which a stated modality is counted. Raises InvalidField for an unknown one."""
        if stated is None:
            return UNSTATED
        name = self._modalities.get(stated.strip().casefold())
        if name is None:
            # Only names that are known beforehand become labels: a free text may be a patient's name.
            raise InvalidField(f"modality is one of {', '.join(self._modalities.values())}", param="modality")
        return name

    def count(
        self, routed_experts: np.ndarray, *, prompt_ids: tuple[int, ...], prompt_tokens: int, first_row: int = 0
    ) -> np.ndarray:
        """Return the token counts [kind, MoE layer, expert] of one generation, without adding them to the total.

        `routed_experts` is [tokens, layers, top_k]; `prompt_ids` holds one image token; the first `prompt_tokens` rows
        (image expanded) are the prompt, the rest the answer; rows before `first_row` are left out.
        """
        kinds_T = np.full(routed_experts.shape[0], KINDS.index("answer"))
        kinds_T[:prompt_tokens] = KINDS.index("question")
        start = prompt_ids.index(self._config.image_token_id)
        kinds_T[start : start + self._config.num_image_tokens] = KINDS.index("image")
        chosen_TLK = routed_experts[first_row:, self._layers, :]
        numbers_TLK = self._first_KL[kinds_T[first_row:], :, None] + chosen_TLK
        return np.bincount(numbers_TLK.ravel(), minlength=math.prod(self._shape)).reshape(self._shape)

    def add(self, counts_KLE: np.ndarray, *, route: str, modality: str | None = None) -> None:
        """Add one request's counts to the total; `modality` as the request states it."""
        key = route, self.require_modality(modality)
        self._lifetime.add(key, counts_KLE)
        self._recent.add(key, counts_KLE)

    def request_report(self, counts_KLE: np.ndarray) -> Routing:
        """Return one request's counts as part of its answer."""
        layers = tuple(
            LayerRouting(
                layer=layer,
                **{kind: tuple(counts_KLE[row, index].tolist()) for row, kind in enumerate(KINDS)},
            )
            for index, layer in enumerate(self._layers)
        )
        return Routing(expert_domains=self._config.expert_domains, layers=layers)

    def report(self, *, window: int | None = None) -> RouterStatsResponse:
        """Return the counts since `reset`, or of the last `window` seconds (at most an hour)."""
        counts = self._lifetime if window is None else self._recent.last(window)
        by_route, by_modality = self._summed(counts, part=0), self._summed(counts, part=1)
        total_KLE = sum(by_route.values(), start=self._nothing())
        since = self.since
        if window is not None:
            since = max(since, datetime.now(tz=UTC) - timedelta(seconds=window))
        return RouterStatsResponse(
            model=self._config.name,
            since=since.isoformat(timespec="seconds"),
            window_seconds=window,
            requests=counts.requests,
            expert_domains=self._config.expert_domains,
            overall=self._loads(total_KLE.sum(axis=0)),
            by_kind={kind: self._loads(total_KLE[row]) for row, kind in enumerate(KINDS)},
            by_route={route: self._loads(counts.sum(axis=0)) for route, counts in by_route.items()},
            by_modality={name: self._loads(counts.sum(axis=0)) for name, counts in by_modality.items()},
            drift=self._drift(by_modality),
        )

    def recent_drift(self) -> RoutingDrift | None:
        """Return the drift of the last hour for the metrics; None without a reference."""
        return self._drift(self._summed(self._recent.last(LONGEST_SECONDS), part=1))

    def tokens(self) -> Iterator[tuple[int, int, str, int]]:
        """Yield every count as (layer, expert, kind, tokens) for the metrics."""
        total_KLE = sum(self._lifetime.by_key.values(), start=self._nothing())
        for row, kind in enumerate(KINDS):
            yield from self._entries(total_KLE[row], part=kind)

    def tokens_by_modality(self) -> Iterator[tuple[int, int, str, int]]:
        """Yield every count as (layer, expert, modality, tokens) for the metrics.

        The checkpoint's modalities begin with 0, because a rate cannot see a series' first step; others appear when
        they are first stated.
        """
        seen = self._summed(self._lifetime, part=1)
        for modality in dict.fromkeys((UNSTATED, *self._config.expert_domains, *seen)):
            yield from self._entries(seen.get(modality, self._nothing()).sum(axis=0), part=modality)

    def _entries(self, counts_LE: np.ndarray, *, part: str) -> Iterator[tuple[int, int, str, int]]:
        for index, layer in enumerate(self._layers):
            for expert in range(self._experts):
                yield layer, expert, part, int(counts_LE[index, expert])

    def _drift(self, by_modality_KLE: dict[str, np.ndarray]) -> RoutingDrift | None:
        return routing_drift(self.reference, by_modality_KLE, kinds=KINDS) if self.reference is not None else None

    def _summed(self, counts: Counts, *, part: Literal[0, 1]) -> dict[str, np.ndarray]:
        """Return the sums by one part of the key: 0 for the route, 1 for the modality."""
        found: dict[str, np.ndarray] = {}
        for key, counts_KLE in counts.by_key.items():
            found[key[part]] = found.get(key[part], self._nothing()) + counts_KLE
        return found

    def _nothing(self) -> np.ndarray:
        return np.zeros(self._shape, dtype=np.int64)

    def _loads(self, counts_LE: np.ndarray) -> tuple[LayerLoad, ...]:
        return tuple(self._load(layer, counts_LE[index]) for index, layer in enumerate(self._layers))

    def _load(self, layer: int, counts_E: np.ndarray) -> LayerLoad:
        tokens = int(counts_E.sum())
        shares_E = counts_E / tokens if tokens else np.zeros(self._experts)
        domains = self._config.expert_domains or (None,) * self._experts
        return LayerLoad(
            layer=layer,
            tokens=tokens,
            entropy=_evenness(shares_E) if tokens else None,
            cv=float(counts_E.std() / counts_E.mean()) if tokens else None,
            dead_experts=tuple(np.flatnonzero(counts_E == 0).tolist()) if tokens else (),
            experts=tuple(
                ExpertLoad(expert=e, domain=domains[e], tokens=int(counts_E[e]), load_share=float(shares_E[e]))
                for e in range(self._experts)
            ),
        )


def _evenness(shares_E: np.ndarray) -> float:
    """Return the entropy over its maximum; 1 for a single expert."""
    if len(shares_E) == 1:
        return 1.0
    used = shares_E[shares_E > 0]
    return float(-(used * np.log(used)).sum() / np.log(len(shares_E)) + 0.0)
