"""Share tower features among evaluated checkpoints: methods of one base have the same frozen tower."""

from pathlib import Path

import torch

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import Features
from medmoe.training.evaluation.predict.predictors import ImageFeatures
from medmoe.training.feature_cache import tower_fingerprint


class SharedFeatures:
    """Remember every image's features by tower, in memory (a small DINOv2: 0.4 MB an image).

    In full precision, unlike the cache of training: figures are those of `medmoe eval`.
    """

    def __init__(self) -> None:
        self._towers: dict[str, dict[Path, torch.Tensor]] = {}

    def of(self, model: MedMoE) -> Features:
        remembered = self._towers.setdefault(tower_fingerprint(model.vision_tower, model.config), {})
        compute = ImageFeatures(model, processor=ImageProcessor.from_config(model.config))

        def features(image: Path) -> torch.Tensor:
            if image not in remembered:
                remembered[image] = compute(image)
            return remembered[image]

        return features
