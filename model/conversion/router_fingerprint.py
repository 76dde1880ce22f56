"""Are the gates of all MoE layers one and the same router?

Med-MoE trains one router and copies it, frozen, into every MoE layer. Gates that differ were trained in stage 3, as
happens upstream when the router's path is not set; which of the two holds is a fact about the checkpoint.
"""

import hashlib

import torch


class RouterFingerprint:
    """Collects the stored values of every gate tensor and compares them across layers."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[str, str]] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """`name` is ours: `….layers.N.mlp.gate.weight`."""
        layer, _, part = name.partition(".mlp.gate.")
        values = tensor.detach().float().contiguous().numpy().tobytes()
        self._digests.setdefault(layer, {})[part] = hashlib.sha256(values).hexdigest()

    def result(self) -> dict[str, object]:
        """`equal`, `layers` and a sentence; empty for a dense model."""
        if not self._digests:
            return {}
        whole = {tuple(sorted(parts.items())) for parts in self._digests.values()}
        equal = len(whole) == 1
        text = (
            "the gates of all layers are equal, as a frozen router leaves them"
            if equal
            else f"{len(whole)} different gates in {len(self._digests)} layers: the router was trained with the experts"
        )
        return {"equal": equal, "layers": len(self._digests), "text": text}
