"""Keep the frozen tower's features for a finetuning run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.linear_probe import probe_predictions
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.finetune.split import OwnSplit
from medmoe.training.optimization.distributed import own_device
from medmoe.training.precision import fast_dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerFeatures:
    """Hold two caches of one tower's features, on the device that trains."""

    train: FeatureCache
    """In bfloat16 where the device has it."""
    held_out: FeatureCache
    """In float32: what is measured is what a service computes."""

    @classmethod
    def of_model(cls, model: MedMoE, *, folder: Path) -> Self:
        """Move the model to the device that trains, and open the caches of its tower in `folder`."""
        device = own_device()
        tower = model.to(device).vision_tower
        return cls(
            train=FeatureCache(folder, tower=tower, config=model.config, dtype=fast_dtype(device)),
            held_out=FeatureCache(folder, tower=tower, config=model.config),
        )

    def probe(self, split: OwnSplit) -> list[Prediction]:
        """Return a linear probe's predictions of the labelled test samples."""
        samples = [sample for sample in split.samples if sample.kind == "classification"]
        self.train.fill(dict.fromkeys(sample.image for sample in samples))
        return list(probe_predictions(split.test, train=split.train, val=split.val, features=self.train).values())

    def bytes_needed(self, train: Sequence[Sample], held_out: Sequence[Sample], *, model: MedMoE) -> int:
        """Return how much the caches will hold at most."""
        vision = model.config.vision_config
        views = {sample.image: sample.views for sample in train} | {sample.image: 2 for sample in held_out}
        return sum(views.values()) * vision.num_patches * vision.hidden_size * 2
