"""Which experts the tokens of this service have gone to, by layer, by kind of token, by route.

Apart from metrics because it answers questions that counters cannot (shares, entropy, dead experts) and because one
request's own counts are part of its answer. Only real MoE layers are read: the engine reports dense ones as zeros.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from medmoe.model.config import MedMoEConfig
from medmoe.server.schemas import ExpertLoad, LayerLoad, LayerRouting, RouterStatsResponse, Routing

Kind = Literal["image", "question", "answer"]
KINDS: tuple[Kind, ...] = ("image", "question", "answer")


class RouterStats:
    """Counts of shape [kind, MoE layer, expert]; K, L, E in the names below. Lives on the event loop's thread."""

    def __init__(self, config: MedMoEConfig) -> None:
        self._config = config
        self._layers = config.text_config.moe_layers
        self._experts = config.text_config.num_experts
        self.reset()

    def reset(self) -> None:
        """Forget everything and start counting now."""
        self._since = datetime.now(tz=UTC)
        self._requests = 0
        self._by_route: dict[str, np.ndarray] = {}

    def count(
        self, routed_experts: np.ndarray, *, prompt_ids: tuple[int, ...], prompt_tokens: int, first_row: int = 0
    ) -> np.ndarray:
        """Token counts KLE of one generation, without adding them to the total.

        `routed_experts` is [tokens, layers, top_k]; `prompt_ids` holds one image token; the first `prompt_tokens` rows
        (image expanded) are the prompt, the rest the answer; rows before `first_row` are left out.
        """
        kinds_T = np.full(routed_experts.shape[0], KINDS.index("answer"))
        kinds_T[:prompt_tokens] = KINDS.index("question")
        start = prompt_ids.index(self._config.image_token_id)
        kinds_T[start : start + self._config.num_image_tokens] = KINDS.index("image")
        counts_KLE = np.zeros((len(KINDS), len(self._layers), self._experts), dtype=np.int64)
        for index, layer in enumerate(self._layers):
            chosen_TK = routed_experts[first_row:, layer, :].astype(np.int64)
            rows_TK = np.broadcast_to(kinds_T[first_row:, None], chosen_TK.shape)
            np.add.at(counts_KLE[:, index, :], (rows_TK, chosen_TK), 1)
        return counts_KLE

    def add(self, counts_KLE: np.ndarray, *, route: str) -> None:
        """Add one request's counts to the total."""
        self._requests += 1
        self._by_route[route] = self._by_route.get(route, 0) + counts_KLE

    def request_report(self, counts_KLE: np.ndarray) -> Routing:
        """One request's counts as part of its answer."""
        layers = tuple(
            LayerRouting(
                layer=layer,
                **{kind: tuple(counts_KLE[row, index].tolist()) for row, kind in enumerate(KINDS)},
            )
            for index, layer in enumerate(self._layers)
        )
        return Routing(expert_domains=self._config.expert_domains, layers=layers)

    def report(self) -> RouterStatsResponse:
        """Everything counted since `reset`."""
        total_KLE = self._total()
        return RouterStatsResponse(
            model=self._config.name,
            since=self._since.isoformat(timespec="seconds"),
            requests=self._requests,
            expert_domains=self._config.expert_domains,
            overall=self._loads(total_KLE.sum(axis=0)),
            by_kind={kind: self._loads(total_KLE[row]) for row, kind in enumerate(KINDS)},
            by_route={route: self._loads(counts.sum(axis=0)) for route, counts in self._by_route.items()},
        )

    def tokens(self) -> Iterator[tuple[int, int, str, int]]:
        """Every count as (layer, expert, kind, tokens), for the metrics."""
        total_KLE = self._total()
        for row, kind in enumerate(KINDS):
            for index, layer in enumerate(self._layers):
                for expert in range(self._experts):
                    yield layer, expert, kind, int(total_KLE[row, index, expert])

    def _total(self) -> np.ndarray:
        empty = np.zeros((len(KINDS), len(self._layers), self._experts), dtype=np.int64)
        return sum(self._by_route.values(), start=empty)

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
    """Entropy over its maximum; a lone expert is as even as it gets."""
    if len(shares_E) == 1:
        return 1.0
    used = shares_E[shares_E > 0]
    return float(-(used * np.log(used)).sum() / np.log(len(shares_E)) + 0.0)
