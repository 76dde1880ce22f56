"""Compute the pooled tower features that a reference is made of, for image files and for images in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from PIL import Image

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.model.unlike_training.scorer import pooled
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.precision import fast_dtype

_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledFeatures:
    """Mean and standard deviation over the patches of N images, each [N, C]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def rows(self, places: Sequence[int]) -> Self:
        """Return those of some images."""
        index = torch.tensor(places, dtype=torch.long)
        return type(self)(mean=self.mean[index], std=self.std[index])

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Return those of all images of `parts`, in order."""
        kept = list(parts)
        return cls(mean=torch.cat([part.mean for part in kept]), std=torch.cat([part.std for part in kept]))


class FeaturePooling:
    """Pool the features of one checkpoint's tower, computed in bfloat16 where the device has it."""

    def __init__(self, model: MedMoE, *, folder: Path, device: str = "cpu") -> None:
        """`folder` keeps the patch features of image files, as a training run keeps them."""
        dtype = fast_dtype(torch.device(device))
        tower = model.vision_tower.to(device)
        self._cache = FeatureCache(folder, tower=tower, config=model.config, dtype=dtype)
        self._processor = ImageProcessor.from_config(model.config)
        self._device, self._width = device, model.config.vision_config.hidden_size

    def files(self, images: Sequence[Path]) -> PooledFeatures:
        """Return the pooled features of image files. Raises DataError naming a file that is no image."""
        self._cache.fill(dict.fromkeys(images))
        none = torch.zeros(0, self._width)
        batches = (images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE))
        parts = (_pooled(torch.stack([self._cache(image) for image in batch])) for batch in batches)
        return PooledFeatures.joined([PooledFeatures(mean=none, std=none), *parts])

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> PooledFeatures:
        """Return the pooled features of images in memory."""
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = [torch.from_numpy(self._processor(image)) for image in images[start : start + _AT_ONCE]]
            features = self._cache.tower(torch.stack(pixels).to(self._device))
            # The cache keeps the features of files in float16.
            parts.append(_pooled(features.to(torch.float16).cpu()))
        return PooledFeatures.joined(parts)


def _pooled(features_NPC: torch.Tensor) -> PooledFeatures:
    mean_NC, std_NC = pooled(features_NPC)
    return PooledFeatures(mean=mean_NC, std=std_NC)
