"""Image files to tower features, one at a time, remembering the last few: neighbouring questions share an image."""

from functools import lru_cache
from pathlib import Path

import torch

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.training.data.image import read_pixels

_REMEMBERED = 64


class ImageFeatures:
    """Callable from a path to the tower's output [patches, vision hidden], on the model's device."""

    def __init__(self, model: MedMoE, *, processor: ImageProcessor) -> None:
        self._model = model
        self._processor = processor
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._compute)

    def __call__(self, path: Path) -> torch.Tensor:
        """Raises DataError naming the file when it is not a readable picture."""
        return self._remembered(path)

    @torch.no_grad()  # not inference_mode: its tensors could not feed a trained projector
    def _compute(self, path: Path) -> torch.Tensor:
        pixels = read_pixels(path, processor=self._processor)
        device = next(self._model.parameters()).device
        features: torch.Tensor = self._model.vision_tower(pixels[None].to(device))
        return features[0]
