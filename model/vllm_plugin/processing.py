"""Turn an image and its one image token into pixels and placeholders for vLLM.

Pixels come from the ImageProcessor of training, never from a processor of the hub. Prompts arrive as token ids.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)

from medmoe.model.checkpoint.io import check_weights
from medmoe.model.config import MedMoEConfig
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.lora.checkpoint import has_adapter

IMAGE_MARKER = "<image>"


class _PixelProcessor:
    """Takes the place of a Hugging Face processor.

    Pixels travel between processes as uint8, a quarter of float32's size; the model normalises those of new images.
    """

    def __init__(self, processor: ImageProcessor) -> None:
        self._processor = processor

    def __call__(self, images: Image.Image | Sequence[Image.Image] = (), **_: Any) -> BatchFeature:
        several = [images] if isinstance(images, Image.Image) else images
        pixels = [torch.from_numpy(np.ascontiguousarray(self._processor.pixels(image))) for image in several]
        return BatchFeature({"pixel_values": torch.stack(pixels)})


class MedMoEProcessingInfo(BaseProcessingInfo):
    """Tells vLLM's scheduler and profiler about one checkpoint.

    vLLM builds it before it starts its other processes, so a checkpoint that does not fit is refused here with the
    reason.
    """

    def __init__(self, ctx: Any) -> None:
        """Raise CheckpointError as `check_weights` does."""
        super().__init__(ctx)
        directory = Path(ctx.model_config.model)
        check_weights(directory, self.medmoe)
        has_adapter(directory)

    @cached_property
    def medmoe(self) -> MedMoEConfig:
        config: MedMoEConfig = self.ctx.get_hf_config().medmoe
        return config

    def get_hf_processor(self, **_: Any) -> _PixelProcessor:
        return _PixelProcessor(ImageProcessor.from_config(self.medmoe))

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"image": self.medmoe.num_image_tokens}


class MedMoEDummyInputs(BaseDummyInputsBuilder[MedMoEProcessingInfo]):
    """Builds the largest possible input for vLLM's memory profiling."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        token: str = self.info.get_tokenizer().convert_ids_to_tokens(self.info.medmoe.image_token_id)
        return token * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], *_: Any, **__: Any) -> Mapping[str, Any]:
        size = self.info.medmoe.vision_config.image_size
        return {"image": [Image.new("RGB", (size, size))] * mm_counts.get("image", 0)}


class MedMoEProcessor(BaseMultiModalProcessor[MedMoEProcessingInfo]):
    """One image token becomes `num_image_tokens` copies of itself; one image becomes one block of pixels."""

    def _get_mm_fields_config(self, *_: Any, **__: Any) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(self, *_: Any, **__: Any) -> Sequence[PromptUpdate]:
        config = self.info.medmoe
        token = config.image_token_id
        return [
            PromptReplacement(modality="image", target=[token], replacement=[token] * config.num_image_tokens),
        ]
