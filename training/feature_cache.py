"""Tower features on disk: the tower is frozen in every stage, so each image passes through it once.

One flat float16 file and an index keyed by the image file's SHA-256; the folder's name is a fingerprint of the tower's
weights and of the preprocessing, so that features of another tower are never mistaken for this one's.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from medmoe.model.config import MedMoEConfig
from medmoe.model.file_digest import file_sha256
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.vision_tower import VisionTower
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.errors import DataError
from medmoe.training.data.picture import read_pixels

_INDEX, _FEATURES = "index.json", "features.float16"
_BATCH = 16


class FeatureCache:
    """Callable: an image file to its features [patches, vision hidden], float32."""

    def __init__(self, directory: Path, *, tower: VisionTower, config: MedMoEConfig) -> None:
        self._tower = tower
        self._processor = ImageProcessor.from_config(config)
        self._shape = (config.vision_config.num_patches, config.vision_config.hidden_size)
        self.directory = directory / _fingerprint(tower, config)
        self.directory.mkdir(parents=True, exist_ok=True)
        index = self.directory / _INDEX
        self._rows: dict[str, int] = json.loads(index.read_text()) if index.exists() else {}
        if self._rows and not self._complete():
            # The features were removed or cut: computing them again is always right.
            self._rows = {}
        self._digests: dict[Path, str] = {}

    def __call__(self, image: Path) -> torch.Tensor:
        """Raises KeyError for an image that `fill` has not seen."""
        features = torch.from_numpy(np.array(self._map()[self._rows[self._digest(image)]]))
        return features.float()

    def fill(self, images: Iterable[Path]) -> None:
        """Compute what is missing, with a progress bar; safe to interrupt and repeat.

        Raises DataError naming a file that is not a picture.
        """
        missing = {digest: image for image in images if (digest := self._digest(image)) not in self._rows}
        batches = [list(missing.items())[i : i + _BATCH] for i in range(0, len(missing), _BATCH)]
        with (self.directory / _FEATURES).open("r+b" if self._rows else "wb") as file:
            for batch in tqdm(batches, desc="tower features", unit="batch", disable=not batches):
                pixels = [read_pixels(image, processor=self._processor) for _, image in batch]
                features = self._tower(torch.stack(pixels)).to(torch.float16)
                if not torch.isfinite(features).all():
                    raise DataError("the tower's features do not fit 16 bit numbers")
                file.seek(len(self._rows) * features[0].numel() * features.element_size())
                file.write(features.numpy().tobytes())
                file.flush()
                for digest, _ in batch:
                    self._rows[digest] = len(self._rows)
                # Written after the features: an interrupted run can only have rows too many, never too few.
                write_atomically(self.directory / _INDEX, json.dumps(self._rows))

    def _complete(self) -> bool:
        path = self.directory / _FEATURES
        patches, depth = self._shape
        return path.exists() and path.stat().st_size >= len(self._rows) * patches * depth * 2

    def _map(self) -> np.memmap:
        return np.memmap(self.directory / _FEATURES, dtype=np.float16, mode="r", shape=(len(self._rows), *self._shape))

    def _digest(self, image: Path) -> str:
        if image not in self._digests:
            self._digests[image] = file_sha256(image)
        return self._digests[image]


def _fingerprint(tower: VisionTower, config: MedMoEConfig) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().numpy().tobytes())
    digest.update(config.image_processor.model_dump_json().encode())
    # A field that a later version adds, with a default that changes nothing, must not throw features away.
    digest.update(config.vision_config.model_dump_json(exclude_defaults=True).encode())
    return digest.hexdigest()[:16]
