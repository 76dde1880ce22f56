"""Tower features for evaluating many checkpoints: methods of one base share a frozen tower and its features."""

import hashlib
from pathlib import Path

import torch

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.training.data.collator import Features
from medmoe.training.evaluation.image_features import ImageFeatures


class SharedFeatures:
    """Remembers every image's features by tower, in memory (a small DINOv2: 0.4 MB an image).

    In full precision, unlike the cache of training: figures are those of `medmoe eval`.
    """

    def __init__(self) -> None:
        self._towers: dict[str, dict[Path, torch.Tensor]] = {}

    def of(self, model: MedMoE) -> Features:
        remembered = self._towers.setdefault(_fingerprint(model), {})
        compute = ImageFeatures(model, processor=ImageProcessor.from_config(model.config))

        def features(image: Path) -> torch.Tensor:
            if image not in remembered:
                remembered[image] = compute(image)
            return remembered[image]

        return features


def _fingerprint(model: MedMoE) -> str:
    """Of the tower's weights: a result stored in 16 bit has another tower than its base in 32."""
    digest = hashlib.sha256(model.config.image_processor.model_dump_json().encode())
    for name, value in sorted(model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()
