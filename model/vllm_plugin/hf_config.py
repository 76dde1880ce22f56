"""Present config.json to vLLM as a transformers config around our strict one.

vLLM looks at the attributes of a `PretrainedConfig`. Values used: `architectures`, `dtype`, and on `text_config` the
decoder's sizes. Presence required: `num_experts` and `num_experts_per_tok` as integers on `text_config` (routing
capture reads them). Everything else our classes take from `medmoe`, the parsed MedMoEConfig.
"""

import json
from typing import Any

from transformers import PretrainedConfig

from medmoe.model.config import MedMoEConfig, TextConfig
from medmoe.model.language_model import hf_text_config

_TEXT_ARCHITECTURE = {
    "llama": "MedMoELlamaForCausalLM",
    "phi": "MedMoEPhiForCausalLM",
    "stablelm": "MedMoEStableLmForCausalLM",
}


class MedMoEHFConfig(PretrainedConfig):
    """Holds the JSON object it was read from, so that copies and pickles in vLLM's processes stay complete."""

    model_type = "medmoe"

    def __init__(self, **fields: Any) -> None:
        source = {name: value for name, value in fields.items() if name in MedMoEConfig.model_fields}
        rest = {name: value for name, value in fields.items() if name not in source}
        self.source = json.dumps(source) if source else ""
        if source:
            self.text_config = _vllm_text_config(self.medmoe.text_config)
            rest |= {"architectures": list(self.medmoe.architectures), "dtype": self.medmoe.dtype}
            rest["tie_word_embeddings"] = self.medmoe.text_config.tie_word_embeddings
        super().__init__(**rest)

    @property
    def medmoe(self) -> MedMoEConfig:
        """Return the strict configuration. Raises ConfigError when config.json does not fit it."""
        return MedMoEConfig.from_json(self.source)

    def get_text_config(self, *_: Any, **__: Any) -> PretrainedConfig:
        return self.text_config


def _vllm_text_config(text: TextConfig) -> PretrainedConfig:
    config = hf_text_config(text)
    config.architectures = [_TEXT_ARCHITECTURE[text.model_type]]
    config.num_experts = text.num_experts
    config.num_experts_per_tok = text.num_experts_per_tok
    config.medmoe_text = text.model_dump(mode="json")
    return config
