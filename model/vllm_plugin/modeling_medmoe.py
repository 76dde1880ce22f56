"""Compose vision tower and projector, the modules of training, with a decoder on vLLM's layers."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal, SupportsPP
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY

from medmoe.model.checkpoint.io import expected_shapes
from medmoe.model.checkpoint.tensor_comparison import compare_tensors
from medmoe.model.config import MedMoEConfig
from medmoe.model.files.weight_files import SHARDS_PATTERN, WEIGHTS_FILE
from medmoe.model.image_processor import normalise
from medmoe.model.projector import Projector
from medmoe.model.unlike_training.scorer import UnlikeTraining
from medmoe.model.vision_tower import VisionTower
from medmoe.model.vllm_plugin.cpu.rms_norm_cpu import prefer_fused_norms
from medmoe.model.vllm_plugin.cpu.vision_tower_cpu import pack_vision_tower, tower_features
from medmoe.model.vllm_plugin.image_embeddings import ImageEmbeddings
from medmoe.model.vllm_plugin.image_scoring import ImageScoring
from medmoe.model.vllm_plugin.layers.lora_layers import attach_adapters
from medmoe.model.vllm_plugin.processing import (
    IMAGE_MARKER,
    MedMoEDummyInputs,
    MedMoEProcessingInfo,
    MedMoEProcessor,
)


@MULTIMODAL_REGISTRY.register_processor(MedMoEProcessor, info=MedMoEProcessingInfo, dummy_inputs=MedMoEDummyInputs)
class MedMoEForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsPP):
    """The multimodal model. Adapters (Med-MoE-LoRA) in the checkpoint's directory are served with it."""

    # vLLM would also read other *.safetensors or pickles. Only what is hashed may be served: vLLM takes the first
    # pattern that matches, and of shards those that the index names.
    allow_patterns_overrides: ClassVar[list[str]] = [WEIGHTS_FILE, SHARDS_PATTERN]

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality == "image":
            return IMAGE_MARKER
        raise ValueError("only images are supported")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        prefer_fused_norms()
        if vllm_config.model_config.dtype == torch.float32:
            # cuDNN's convolution would compute the vision tower's patches in TF32.
            torch.backends.cudnn.allow_tf32 = False
        hf_config = vllm_config.model_config.hf_config
        config: MedMoEConfig = hf_config.medmoe
        self.medmoe = config
        self.configure_mm_token_handling(vocab_size=config.text_config.vocab_size, mm_token_ids=[config.image_token_id])
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = VisionTower(config.vision_config)
            self.projector = Projector(config)
            # Made once: a copy from the CPU in every batch would wait for the GPU.
            for name, numbers in (("_mean", config.image_processor.mean), ("_std", config.image_processor.std)):
                values = torch.tensor(numbers, dtype=torch.float32)[:, None, None]
                self.register_buffer(name, values, persistent=False)
        self._packed = False
        self._image_embeddings = ImageEmbeddings()
        directory = Path(vllm_config.model_config.model)
        self._image_scoring = ImageScoring.of(vllm_config, UnlikeTraining.from_directory(directory, config))
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=hf_config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
            )
            self._adapters = attach_adapters(self.language_model.model, directory, config)
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> list[torch.Tensor]:
        """Return the embeddings [num_image_tokens, D] of each image in `pixel_values`, uint8 [N, 3, size, size].

        Where the service asks for scores, `image_id`, uint8 [N, 32], identifies each image.
        """
        pixel_values = kwargs.get("pixel_values")
        if pixel_values is None:
            return []
        if isinstance(pixel_values, list):
            pixel_values = torch.stack(pixel_values)
        pixels = pixel_values.float()
        normalise(pixels, mean=self._mean, std=self._std)
        features = tower_features(self.vision_tower, pixels)
        if self._image_scoring is not None:
            self._image_scoring(features, kwargs.get("image_id"))
        return self._image_embeddings.copies(self.projector(features))

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: Any,
    ) -> Any:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        logits: torch.Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load every tensor and the adapters; return the names of the filled parameters.

        Raises CheckpointError for a missing tensor, which vLLM would tolerate and serve random numbers, and vLLM's own
        error for an unknown or misshapen one.
        """
        if self._packed:
            # vLLM reloads the weights, and a packed tower cannot be filled.
            dtype = next(self.vision_tower.parameters()).dtype
            self.vision_tower = VisionTower(self.medmoe.vision_config).to(dtype).eval()
        found: dict[str, tuple[int, ...]] = {}

        def seen() -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in weights:
                found[name] = tuple(tensor.shape)
                yield name, tensor

        loaded: set[str] = AutoWeightsLoader(self).load_weights(seen())
        compare_tensors(found, expected_shapes(self.medmoe), source="the checkpoint")
        if self._adapters is not None:
            self._adapters.load()
            filled = self._adapters.parameters()
            loaded |= {name for name, parameter in self.named_parameters() if id(parameter) in filled}
        self._packed = pack_vision_tower(self.vision_tower, self.medmoe.vision_config)
        return loaded
