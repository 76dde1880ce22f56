"""Are the gates of all MoE layers one and the same router? Torch-free.

Med-MoE trains one router and copies it, frozen, into every MoE layer. Gates that differ were trained in stage 3, as
happens upstream when the router's path is not set; which of the two holds is a fact about the checkpoint.
"""

import hashlib

_GATE = ".mlp.gate."


def is_gate(name: str) -> bool:
    """Whether a tensor of this name, ours, belongs to a gate."""
    return _GATE in name


class RouterFingerprint:
    """Collects the values of every gate tensor and compares them across layers."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[str, str]] = {}

    def add(self, name: str, values: bytes) -> None:
        """`name` is ours: `….layers.N.mlp.gate.weight`; `values` are of one dtype in all layers."""
        layer, _, part = name.partition(_GATE)
        self._digests.setdefault(layer, {})[part] = hashlib.sha256(values).hexdigest()

    @property
    def layers(self) -> int:
        return len(self._digests)

    @property
    def different(self) -> int:
        """How many different routers there are; 1 in a checkpoint whose router was frozen."""
        return len({tuple(sorted(parts.items())) for parts in self._digests.values()})
