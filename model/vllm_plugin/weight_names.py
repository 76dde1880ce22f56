"""Map tensor names on disk to names inside vLLM's decoders.

vLLM's own tables rename every `.gate_proj` and `.up_proj`, also of single experts, which would then load into the wrong
place without an error. These tables rename only attention, dense FFN and shared expert; experts keep the names that
vLLM's fused layer expects.
"""

import re

from vllm.model_executor.models.utils import WeightsMapper

_ATTENTION = {
    ".q_proj": (".qkv_proj", "q"),
    ".k_proj": (".qkv_proj", "k"),
    ".v_proj": (".qkv_proj", "v"),
}

SWIGLU_NAMES = WeightsMapper(
    orig_to_new_stacked=_ATTENTION
    | {
        ".mlp.gate_proj": (".mlp.gate_up_proj", 0),
        ".mlp.up_proj": (".mlp.gate_up_proj", 1),
        ".shared_expert.gate_proj": (".shared_expert.gate_up_proj", 0),
        ".shared_expert.up_proj": (".shared_expert.gate_up_proj", 1),
    }
)

PHI_NAMES = WeightsMapper(
    orig_to_new_regex={
        re.compile(r"(\.mlp\.experts\.\d+)\.fc1\."): r"\1.gate_proj.",
        re.compile(r"(\.mlp\.experts\.\d+)\.fc2\."): r"\1.down_proj.",
    },
    orig_to_new_stacked=_ATTENTION,
)

EXPERT_OUTPUT_BIAS = re.compile(r"\.mlp\.experts\.\d+\.fc2\.bias$")
