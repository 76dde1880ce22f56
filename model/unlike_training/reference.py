"""Read the metadata of training_reference.safetensors: how unlike the training images an image may be. Torch-free.

The engine scores images with the tensors, which medmoe.model.unlike_training.scorer reads. A file belongs to exactly
one vision tower, whatever decoder is trained on it.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from safetensors import SafetensorError, safe_open

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.strict_json import StrictFile, StrictSection
from medmoe.model.files.weight_files import damaged_weights
from medmoe.model.files.weights_bound_file import Sha256
from medmoe.model.unlike_training.tower_digest import tower_sha256

TRAINING_REFERENCE_FILE = "training_reference.safetensors"
_KEY = "medmoe"


class ReferenceImages(StrictSection):
    """The training images that an image is compared with."""

    datasets: tuple[str, ...] = Field(min_length=1)
    images: int = Field(gt=0)


class FalseAlarms(StrictSection):
    """Images of the same datasets that training did not see; the threshold is a quantile of their scores."""

    split: Literal["val", "test"]
    images: int = Field(gt=0)
    rate: float = Field(ge=0, le=1)
    """Share of them above the threshold."""


class TrainingReference(StrictFile):
    """The metadata of training_reference.safetensors."""

    FILE = TRAINING_REFERENCE_FILE
    KIND = "a training reference that this version reads"

    format_version: Literal[1] = 1
    tower_sha256: Sha256
    """As `medmoe.model.unlike_training.tower_digest` computes it."""
    neighbours: int = Field(gt=0, le=1000)
    """So many nearest training images are looked at."""
    threshold: float = Field(gt=0)
    """A higher score is flagged."""
    references: ReferenceImages
    false_alarms: FalseAlarms

    @classmethod
    def from_directory(cls, directory: Path, config: MedMoEConfig) -> Self | None:
        """Return the checkpoint's reference; None where it has none.

        Raises ConfigError when the metadata are malformed, CheckpointError when the file cannot be read or was made
        with another tower.
        """
        path = directory / TRAINING_REFERENCE_FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                metadata: dict[str, str] = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise damaged_weights(path, error) from error
        found = cls.from_json(metadata.get(_KEY, "{}"))
        if found.tower_sha256 != tower_sha256(directory, config):
            raise CheckpointError(
                f"{path} was made with another vision tower, or the weights are damaged; copy the checkpoint again, or"
                " run medmoe reference on it or remove the file"
            )
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """Return the metadata for the header of the file."""
        return {_KEY: self.model_dump_json()}
