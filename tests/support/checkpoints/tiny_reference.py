"""Make a reference of training images for a tiny checkpoint, and score images by it one number at a time."""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.unlike_training.reference import (
    TRAINING_REFERENCE_FILE,
    FalseAlarms,
    ReferenceImages,
    TrainingReference,
)
from medmoe.model.unlike_training.tower_digest import tower_sha256
from medmoe.training.unlike_training.fit import NEIGHBOURS, FitData, fit_tensors
from medmoe.training.unlike_training.pooled_features import PooledFeatures
from medmoe.training.unlike_training.write import write_reference


def save_tiny_reference(directory: Path, *, threshold: float = 1e6, seed: int = 0) -> Path:
    """Write a reference that is fitted to random numbers; by default it flags nothing."""
    config = MedMoEConfig.from_directory(directory)
    generator = torch.Generator().manual_seed(seed)

    def features(count: int, *, shift: float) -> PooledFeatures:
        mean, std = torch.randn(2, count, config.vision_config.hidden_size, generator=generator)
        return PooledFeatures(mean=mean + shift, std=std.abs())

    data = FitData(
        train=features(80, shift=0),
        datasets=["one", "other"] * 40,
        held_out=features(40, shift=0),
        drawn=features(20, shift=2),
    )
    reference = TrainingReference(
        tower_sha256=tower_sha256(directory, config),
        neighbours=NEIGHBOURS,
        threshold=threshold,
        references=ReferenceImages(datasets=("one", "other"), images=60),
        false_alarms=FalseAlarms(split="val", images=40, rate=0.0),
    )
    return write_reference(directory, reference, fit_tensors(data, images=60))


def slow_score(directory: Path, features_PC: np.ndarray) -> float:
    """Return the score of one image's patch features, by the definition and in float64."""
    stored = load_file(directory / TRAINING_REFERENCE_FILE)
    tensors = {name: value.astype(np.float64) for name, value in stored.items()}
    mean = (features_PC.mean(axis=0, dtype=np.float64) - tensors["mean_centre"]) / tensors["mean_scale"]
    std = (features_PC.std(axis=0, dtype=np.float64) - tensors["std_centre"]) / tensors["std_scale"]
    place = [
        sum(mean[c] * tensors["mean_components"][c, j] for c in range(len(mean))) * factor
        for j, factor in enumerate(tensors["whitening"])
    ]
    distances = [float(np.linalg.norm(image - place)) for image in tensors["images"]]
    nearest = sorted(range(len(distances)), key=distances.__getitem__)[:NEIGHBOURS]
    parts = [
        np.log(np.mean([distances[image] for image in nearest]))
        - np.log(np.mean([tensors["spacing"][image] for image in nearest])) / 2
    ]
    for values, name in ((mean, "mean_components"), (std, "std_components")):
        left = values.copy()
        for component in tensors[name].T:
            left -= (values @ component) * component
        parts.append(np.log(np.linalg.norm(left)))
    parts.append(mean @ tensors["drawn"][:-1] + tensors["drawn"][-1])
    excess = np.maximum(np.array(parts) - tensors["part_centre"], 0) / tensors["part_scale"]
    return float(np.sqrt(np.sum(excess**2)))
