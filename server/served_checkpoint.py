"""Identify the checkpoint that this process serves, and read the files that are bound to its weights."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from medmoe.model.config import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.calibration import AnswerCalibration, Calibration, LabelCalibration
from medmoe.model.files.calibration_binding import Dtype
from medmoe.model.files.digest import file_sha256
from medmoe.model.files.prediction_sets import PredictionSets
from medmoe.model.files.routing_reference import RoutingReference
from medmoe.model.files.weight_files import WeightFiles
from medmoe.model.prompt import TOKENIZER_FILE, Prompt
from medmoe.model.unlike_training.reference import TrainingReference
from medmoe.server.imaging.image import DecodedImage

_VERSION_DIGITS = 12


class ServedCheckpoint:
    """The config and prompt of a checkpoint directory at once; hashes and what depends on them after `hash_weights`."""

    weights_sha256: str | None = None
    """`WeightFiles.sha256` in hex; None before `hash_weights`, and for a checkpoint without weights."""
    adapter_sha256: str | None = None
    """SHA-256 hex of adapter_model.safetensors; None before `hash_weights`, and for a checkpoint without adapters."""
    calibration: Calibration | None = None
    """From calibration.json, where the checkpoint has one."""
    routing_reference: RoutingReference | None = None
    """From routing_reference.json, where the checkpoint has one."""
    training_reference: TrainingReference | None = None
    """From training_reference.safetensors, where the checkpoint has one."""

    def __init__(self, directory: Path) -> None:
        """Raise ConfigError or CheckpointError when `directory` cannot be read."""
        self.directory = directory
        self.config = MedMoEConfig.from_directory(directory)
        self.config_sha256 = file_sha256(directory / CONFIG_FILE)
        self._beside_weights = _beside_weights(directory)
        self.prompt = Prompt.from_directory(directory, self.config)

    @property
    def version(self) -> str:
        """Return the beginning of the hash that tells this checkpoint from others of its name."""
        return (self.adapter_sha256 or self.weights_sha256 or self.config_sha256)[:_VERSION_DIGITS]

    async def hash_weights(self) -> None:
        """Hash the weights on a thread (seconds for gigabytes), then read the files that are bound to them.

        Raises ConfigError when calibration.json, routing_reference.json or training_reference.safetensors is malformed,
        CheckpointError when it belongs to other weights.
        """
        self.weights_sha256 = await asyncio.to_thread(_weights_sha256, self.directory)
        self.adapter_sha256 = await asyncio.to_thread(_sha256, self.directory / ADAPTER_WEIGHTS_FILE)
        if self.weights_sha256 is None:
            return
        self.calibration = Calibration.of_weights(
            self.directory, weights_sha256=self.weights_sha256, adapter_sha256=self.adapter_sha256
        )
        self.routing_reference = RoutingReference.from_directory(
            self.directory,
            weights_sha256=self.weights_sha256,
            adapter_sha256=self.adapter_sha256,
            moe_layers=self.config.text_config.moe_layers,
            num_experts=self.config.text_config.num_experts,
        )
        self.training_reference = await asyncio.to_thread(TrainingReference.from_directory, self.directory, self.config)

    def room(self, prompt_ids: Sequence[int]) -> int:
        """Return how many tokens the context holds after a prompt and its image; below 0 where these do not fit."""
        return self.config.text_config.max_position_embeddings - self.prompt.expanded_length(prompt_ids)

    def label_calibration(self, labels: Iterable[str], dtype: Dtype | None) -> LabelCalibration | None:
        """Return the calibration of this set of labels where it holds for the prompt and for `dtype`."""
        holding = self._holding(dtype)
        return holding.for_labels(labels) if holding is not None else None

    def prediction_sets(self, labels: Iterable[str], dtype: Dtype | None) -> PredictionSets | None:
        """Return the prediction sets of this set of labels where they hold for the prompt and for `dtype`."""
        wanted, holding = frozenset(labels), self._holding(dtype)
        sets = holding.prediction_sets if holding is not None else ()
        return next((found for found in sets if frozenset(found.labels) == wanted), None)

    def answer_calibration(self, dtype: Dtype | None) -> AnswerCalibration | None:
        """Return the calibration of generated answers where it holds for the prompt and for `dtype`."""
        holding = self._holding(dtype)
        return holding.answers if holding is not None else None

    def calibrated(self, dtype: Dtype | None) -> tuple[Literal["classification", "answers"], ...]:
        """Return the kinds of answer that a calibration in `dtype` exists for."""
        holding = self._holding(dtype)
        found: list[Literal["classification", "answers"]] = []
        if holding is not None and holding.label_sets:
            found.append("classification")
        if holding is not None and holding.answers is not None:
            found.append("answers")
        return tuple(found)

    def _holding(self, dtype: Dtype | None) -> Calibration | None:
        if self.calibration is None:
            return None
        return self.calibration.holding(prompt_sha256=self.prompt.sha256, dtype=dtype)

    async def require_unchanged(self) -> None:
        """Raise CheckpointError when a file that an engine reads has changed since this service has read it."""
        current = [
            await asyncio.to_thread(_sha256, self.directory / CONFIG_FILE),
            await asyncio.to_thread(_beside_weights, self.directory),
            await asyncio.to_thread(_weights_sha256, self.directory),
            await asyncio.to_thread(_sha256, self.directory / ADAPTER_WEIGHTS_FILE),
        ]
        if current != [self.config_sha256, self._beside_weights, self.weights_sha256, self.adapter_sha256]:
            raise CheckpointError("the checkpoint has changed since the service was started")

    def provenance(self, image: DecodedImage, *, dtype: Dtype | None) -> dict[str, Any]:
        """Return the fields of Provenance for an answer about `image`, computed in `dtype`."""
        return {
            "image_sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "rendering": image.rendering,
            "mode": self.config.image_processor.mode,
            "resized_to": image.size,
            "weights_sha256": self.weights_sha256,
            "adapter_sha256": self.adapter_sha256,
            "dtype": dtype,
        }


def _beside_weights(directory: Path) -> tuple[str | None, ...]:
    """Return the hashes of what tells how the weights are read: an engine decodes, and scales adapters, by them."""
    return tuple(_sha256(directory / name) for name in (TOKENIZER_FILE, ADAPTER_CONFIG_FILE))


def _weights_sha256(directory: Path) -> str | None:
    weights = WeightFiles.find(directory)
    return None if weights is None else weights.sha256()


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
