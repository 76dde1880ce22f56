"""Define groups of parameters by regular expressions, for the stages that train them.

What stage 3 trains is told in two ways. The paper: domain experts and meta expert. Upstream's code, read from the sizes
of its optimizer's partitions: these, the FFNs of the layers that are not MoE (they match the same module names), and
the projector (`initialize_vision_modules` unfreezes it again). The router is frozen in both.
"""

from typing import Literal

MoETuningMode = Literal["paper", "upstream"]

_LAYER = r"language_model\.model\.layers\.\d+\."

PROJECTOR = r"projector\."
LANGUAGE_MODEL = r"language_model\."
FFNS = _LAYER + r"mlp\."
"""Every FFN of a model without MoE layers."""
DENSE_FFNS = _LAYER + r"mlp\.(gate_proj|up_proj|down_proj|fc1|fc2)\."
"""FFNs of the layers without experts, in a model with MoE layers."""
EXPERTS = _LAYER + r"mlp\.(experts|shared_expert)\."
GATES = _LAYER + r"mlp\.gate\."
ADAPTERS = _LAYER + r"(self_attn|mlp)\.adapter\."


def moe_trainable(mode: MoETuningMode) -> tuple[str, ...]:
    """Return what stage 3 trains of a model with MoE layers."""
    return (EXPERTS,) if mode == "paper" else (EXPERTS, DENSE_FFNS, PROJECTOR)
