"""Cache tower features on disk: the tower is frozen in every stage, so each view of an image passes through it once.

One flat float16 file and an index from an image file's SHA-256 and a view's number to a row; the folder's name is a
fingerprint of the tower's weights and of the preprocessing, so that features of another tower are never mistaken for
this one's. A row is patches x hidden numbers: 256 x 384 of a small DINOv2 are 197 kB, and every further view of an
image costs as much again (1,000 images in 8 views: 1.6 GB).
"""

import copy
import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.digest import file_sha256
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.vision_tower import VisionTower
from medmoe.training.atomic_file import write_atomically
from medmoe.training.augmentation import AUGMENTATION, augment
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_pixels, read_rgb
from medmoe.training.data.sample import Sample

_INDEX, _FEATURES, _LOCK = "index.json", "features.float16", "lock"
_BATCH = 16
_BATCHES_A_SAVE = 16


class FeatureCache:
    """Callable: an image file and a view to its features [patches, vision hidden], float32 on the CPU.

    The tower runs where its weights lie. Several processes may open one folder: `fill` lets one of them in at a time,
    and rows that another process has added are found.
    """

    def __init__(
        self, directory: Path, *, tower: VisionTower, config: MedMoEConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        """`dtype`: what the tower's weights are rounded to and computed in; each has a folder of its own.

        Raises DataError when the folder holds an index that this class has not written.
        """
        self.tower = tower if dtype == torch.float32 else copy.deepcopy(tower).to(dtype)
        self._processor = ImageProcessor.from_config(config)
        self._shape = (config.vision_config.num_patches, config.vision_config.hidden_size)
        precision = "" if dtype == torch.float32 else f"-{str(dtype).removeprefix('torch.')}"
        self.directory = directory / f"{tower_fingerprint(self.tower, config)}{precision}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._rows = self._read_index()
        self._digests: dict[Path, str] = {}

    def __call__(self, image: Path, view: int = 0) -> torch.Tensor:
        """Return the features of a view. Raises KeyError for one that no process has passed to `fill`."""
        key = _key(self._digest(image), view)
        if key not in self._rows:
            self._rows = self._read_index()
        if key not in self._rows:
            raise KeyError(f"view {view} of {image} has no features yet")
        return torch.from_numpy(np.array(self._map()[self._rows[key]])).float()

    def fill(self, images: Iterable[Path], views: int = 1) -> None:
        """Compute what is missing of views 0 to `views` - 1 of every image; safe to interrupt and to repeat.

        Shows a progress bar. Augmented views are for training: ask for more than one view of training images only.
        Raises DataError naming a file that is not an image, ValueError for fewer than one view.
        """
        if views < 1:
            raise ValueError(f"{views} views of an image: view 0, the image itself, is always there")
        files = {self._digest(image): image for image in images}
        wanted = {_key(digest, view): (image, view) for view in range(views) for digest, image in files.items()}
        if wanted.keys() <= self._rows.keys():
            return
        with self._locked():
            self._rows = self._read_index()
            self._compute({key: seen for key, seen in wanted.items() if key not in self._rows})

    def fill_for(self, samples: Iterable[Sample]) -> None:
        """Call `fill` with all that training on `samples` may draw. Raises as it does."""
        wanted: dict[int, list[Path]] = defaultdict(list)
        for sample in samples:
            wanted[sample.views if sample.split == "train" else 1].append(sample.image)
        for views, images in sorted(wanted.items()):
            self.fill(images, views)

    def _compute(self, missing: dict[str, tuple[Path, int]]) -> None:
        batches = [list(missing.items())[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
        device = next(self.tower.parameters()).device
        path = self.directory / _FEATURES
        with path.open("r+b" if self._rows else "wb") as file, ThreadPoolExecutor(torch.get_num_threads()) as readers:
            for number, batch in enumerate(tqdm(batches, desc="tower features", unit="batch"), start=1):
                pixels = torch.stack(list(readers.map(self._pixels, [seen for _, seen in batch])))
                features = self.tower(pixels.to(device)).to(torch.float16).cpu()
                if not torch.isfinite(features).all():
                    raise DataError("the tower's features do not fit 16 bit numbers")
                file.seek(len(self._rows) * features[0].numel() * features.element_size())
                file.write(features.numpy().tobytes())
                file.flush()
                for key, _ in batch:
                    self._rows[key] = len(self._rows)
                # Written after the features: an interrupted run can only have rows too many, never too few.
                if number % _BATCHES_A_SAVE == 0 or number == len(batches):
                    write_atomically(self.directory / _INDEX, json.dumps(self._rows))

    def _pixels(self, seen: tuple[Path, int]) -> torch.Tensor:
        image, view = seen
        if view == 0:
            return read_pixels(image, processor=self._processor)
        changed = augment(read_rgb(image), digest=self._digest(image), view=view)
        return torch.from_numpy(self._processor(changed))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read_index(self) -> dict[str, int]:
        """Return the rows that are there; a row whose features were removed or cut off is computed again."""
        index, features = self.directory / _INDEX, self.directory / _FEATURES
        if not index.exists() or not features.exists():
            return {}
        try:
            rows = json.loads(index.read_text())
            sound = isinstance(rows, dict) and sorted(rows.values()) == list(range(len(rows)))
        except (ValueError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise DataError(f"{index} is damaged: remove {self.directory}, and its features are computed again")
        patches, depth = self._shape
        whole = features.stat().st_size // (patches * depth * 2)
        return {key: row for key, row in rows.items() if row < whole}

    def _map(self) -> np.memmap:
        return np.memmap(self.directory / _FEATURES, dtype=np.float16, mode="r", shape=(len(self._rows), *self._shape))

    def _digest(self, image: Path) -> str:
        if image not in self._digests:
            self._digests[image] = file_sha256(image)
        return self._digests[image]


def _key(digest: str, view: int) -> str:
    """Return the index's key; that of view 0 is older than views."""
    return digest if view == 0 else f"{digest}/{AUGMENTATION}/{view}"


def tower_fingerprint(tower: VisionTower, config: MedMoEConfig) -> str:
    """Return 16 hexadecimal digits that depend on the weights' values: rounding a tower to 16 bits changes them."""
    digest = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().cpu().numpy().tobytes())
    digest.update(config.image_processor.model_dump_json().encode())
    # A field that a later version adds, with a default that changes nothing, must not throw features away.
    digest.update(config.vision_config.model_dump_json(exclude_defaults=True).encode())
    return digest.hexdigest()[:16]
