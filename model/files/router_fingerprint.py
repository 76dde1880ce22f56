"""Compare the gates of all MoE layers: one router or several? Torch-free.

Med-MoE trains one router and copies it, frozen, into every MoE layer. Gates that differ were trained in stage 3, as
happens upstream when the router's path is not set; which of the two holds is a fact about the checkpoint.
"""

import hashlib

_GATE = ".mlp.gate."


def is_gate(name: str) -> bool:
    """Return whether the tensor of this name on disk belongs to a gate."""
    return _GATE in name


class RouterFingerprint:
    """Collect digests of gate tensors and count the different routers."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[str, str]] = {}

    def add(self, name: str, values: bytes) -> None:
        """Add a gate tensor by its name on disk, `….layers.N.mlp.gate.weight`; all layers have one dtype."""
        layer, _, part = name.partition(_GATE)
        self._digests.setdefault(layer, {})[part] = hashlib.sha256(values).hexdigest()

    @property
    def layers(self) -> int:
        return len(self._digests)

    @property
    def different(self) -> int:
        """Return the number of different routers; 1 in a checkpoint whose router was frozen."""
        return len({tuple(sorted(parts.items())) for parts in self._digests.values()})
