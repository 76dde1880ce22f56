"""Read and write trained_images.json: truncated hashes of the images that a checkpoint was trained on.

A file belongs to one set of weights. With an image one can tell whether it was among them; the hashes tell nothing
about an image that one does not have.
"""

import base64
import binascii
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from medmoe.model.config import ADAPTER_WEIGHTS_FILE
from medmoe.model.files.digest import file_sha256
from medmoe.model.files.weight_files import weights_sha256
from medmoe.model.files.weights_bound_file import WeightsBoundFile
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.errors import DataError

TRAINED_IMAGES_FILE = "trained_images.json"
_BYTES: Final = 5
"""Bytes of each hash. Among 20,000 images another one seems to be known with a probability of 2e-8."""


class TrainedImages(WeightsBoundFile):
    """The content of trained_images.json. `digest in trained_images` asks about a file's hexadecimal SHA-256."""

    FILE = TRAINED_IMAGES_FILE
    KIND = "a list of trained images that this version reads"
    MADE = "written for"
    REMEDY = "give the training run's manifest.json"

    images: int = Field(ge=0)
    bytes_of_each: Literal[5] = _BYTES
    hashes: str
    """The first bytes of each image file's SHA-256, ascending, without a gap, in base64."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            held = len(base64.b64decode(self.hashes, validate=True))
        except binascii.Error as error:
            raise ValueError("hashes is not base64") from error
        if held != self.images * _BYTES:
            raise ValueError(f"hashes does not hold {self.images} times {_BYTES} bytes")
        return self

    @classmethod
    def of_digests(
        cls,
        digests: Iterable[str],
        *,
        weights_sha256: str,
        adapter_sha256: str | None = None,
        base: "TrainedImages | None" = None,
    ) -> Self:
        """Return the file for images by the hexadecimal SHA-256 of their files, and for the images of `base`."""
        earlier = frozenset() if base is None else base._known
        known = sorted(earlier | {bytes.fromhex(digest)[:_BYTES] for digest in digests})
        return cls(
            weights_sha256=weights_sha256,
            adapter_sha256=adapter_sha256,
            images=len(known),
            hashes=base64.b64encode(b"".join(known)).decode(),
        )

    @cached_property
    def _known(self) -> frozenset[bytes]:
        whole = base64.b64decode(self.hashes)
        return frozenset(whole[place : place + _BYTES] for place in range(0, len(whole), _BYTES))

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and bytes.fromhex(digest)[:_BYTES] in self._known


def manifest_images(manifest: Path) -> frozenset[str]:
    """Return the SHA-256 of every image file in the train split of a run's manifest.json.

    Raises DataError when the file cannot be read or is no manifest.
    """
    try:
        found = json.loads(manifest.read_bytes())["splits"]["train"]["sha256"]
        if not isinstance(found, dict):
            raise TypeError
    except OSError as error:
        raise DataError(f"{manifest} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{manifest} is not the manifest of a training run") from error
    return frozenset(found)


def write_trained_images(checkpoint: Path, *, manifest: Path) -> None:
    """Write trained_images.json beside the weights. Raises DataError as `manifest_images` does, CheckpointError."""
    found = TrainedImages.of_digests(manifest_images(manifest), weights_sha256=weights_sha256(checkpoint))
    write_atomically(checkpoint / TRAINED_IMAGES_FILE, found.to_json())


def extend_trained_images(checkpoint: Path, *, base: Path, images: Iterable[Path]) -> None:
    """Write trained_images.json beside weights that were trained on `images` after `base`.

    Nothing is written where the base has no such file: the list would not hold its images. Raises as reading does.
    """
    if not (base / TRAINED_IMAGES_FILE).exists():
        return
    adapter = checkpoint / ADAPTER_WEIGHTS_FILE
    found = TrainedImages.of_digests(
        map(file_sha256, images),
        base=TrainedImages.read(base),
        weights_sha256=weights_sha256(checkpoint),
        adapter_sha256=file_sha256(adapter) if adapter.exists() else None,
    )
    write_atomically(checkpoint / TRAINED_IMAGES_FILE, found.to_json())
