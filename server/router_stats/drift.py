"""Compute routing drift: the Jensen-Shannon divergence of the routing from the checkpoint's reference, by layer.

Only the kinds of token that the reference counts are compared; answers are not among them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from medmoe.model.files.routing_reference import LayerReference, RoutingReference
from medmoe.server.schemas.router_stats import Divergence, LayerDrift, RoutingDrift


def jensen_shannon(p_E: np.ndarray, q_E: np.ndarray) -> float:
    """Return the divergence of two distributions over experts [E] in bits, from 0 (equal) to 1 (no common expert)."""
    mean_E = (p_E + q_E) / 2
    return min(1.0, max(0.0, (_divergence(p_E, mean_E) + _divergence(q_E, mean_E)) / 2))


def routing_drift(
    reference: RoutingReference, by_modality_KLE: Mapping[str, np.ndarray], *, kinds: Sequence[str]
) -> RoutingDrift:
    """Return the drift of counts [kind, MoE layer, expert] by modality; `kinds` names their rows."""
    names = {name.casefold(): name for name in by_modality_KLE}
    counted = reference.counted_on
    layers = []
    for index, expected in enumerate(reference.layers):
        rows = [kinds.index(kind) for kind in expected.by_kind]
        seen_LE = {name: counts_KLE[rows, index].sum(axis=0) for name, counts_KLE in by_modality_KLE.items()}
        total_KE = sum((counts_KLE[rows, index] for counts_KLE in by_modality_KLE.values()), start=_nothing(expected))
        whole = _compared(total_KE.sum(axis=0), expected.tokens)
        layers.append(
            LayerDrift(
                layer=expected.layer,
                tokens=whole.tokens,
                divergence=whole.divergence,
                by_kind={
                    kind: _compared(total_KE[row], tokens)
                    for row, (kind, tokens) in enumerate(expected.by_kind.items())
                },
                by_modality={
                    names[modality.casefold()]: _compared(seen_LE[names[modality.casefold()]], tokens)
                    for modality, tokens in expected.by_modality.items()
                    if modality.casefold() in names
                },
            )
        )
    return RoutingDrift(
        datasets=counted.datasets,
        split=counted.split,
        reference_samples=counted.samples,
        reference_tokens=sum(reference.layers[0].tokens),
        layers=tuple(layers),
    )


def _nothing(expected: LayerReference) -> np.ndarray:
    return np.zeros((len(expected.by_kind), len(expected.tokens)), dtype=np.int64)


def _compared(seen_E: np.ndarray, expected_E: Sequence[int]) -> Divergence:
    tokens = int(seen_E.sum())
    reference_E = np.asarray(expected_E, dtype=np.float64)
    if tokens == 0 or reference_E.sum() == 0:
        return Divergence(tokens=tokens, divergence=None)
    return Divergence(tokens=tokens, divergence=jensen_shannon(seen_E / tokens, reference_E / reference_E.sum()))


def _divergence(p_E: np.ndarray, q_E: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence in bits; `q_E` is positive wherever `p_E` is."""
    used = p_E > 0
    return float((p_E[used] * np.log2(p_E[used] / q_E[used])).sum())
