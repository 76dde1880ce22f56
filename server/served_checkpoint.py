"""Identify the checkpoint that this process serves, and read the files that are bound to its weights."""

import asyncio
from pathlib import Path

from medmoe.model.config import ADAPTER_WEIGHTS_FILE, CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.files.calibration import Calibration
from medmoe.model.files.digest import file_sha256
from medmoe.model.files.routing_reference import RoutingReference
from medmoe.model.files.weight_files import WeightFiles
from medmoe.model.prompt import Prompt
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.schemas.inference import Dtype, Provenance


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

    def __init__(self, directory: Path) -> None:
        """Raise ConfigError or CheckpointError when `directory` cannot be read."""
        self.directory = directory
        self.config = MedMoEConfig.from_directory(directory)
        self.config_sha256 = file_sha256(directory / CONFIG_FILE)
        self.prompt = Prompt.from_directory(directory, self.config)

    async def hash_weights(self) -> None:
        """Hash the weights on a thread (seconds for gigabytes), then read the files that are bound to them.

        Raises ConfigError when calibration.json or routing_reference.json is malformed, CheckpointError when it belongs
        to other weights.
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

    async def require_unchanged(self) -> None:
        """Raise CheckpointError when the files no longer have the hashes that this service has reported."""
        current = [
            await asyncio.to_thread(_sha256, self.directory / CONFIG_FILE),
            await asyncio.to_thread(_weights_sha256, self.directory),
            await asyncio.to_thread(_sha256, self.directory / ADAPTER_WEIGHTS_FILE),
        ]
        if current != [self.config_sha256, self.weights_sha256, self.adapter_sha256]:
            raise CheckpointError("the checkpoint has changed since the service was started")

    def provenance(self, image: DecodedImage, *, dtype: Dtype | None) -> Provenance:
        """Return what reproduces an answer about `image`, computed in `dtype`."""
        return Provenance(
            image_sha256=image.sha256,
            width=image.width,
            height=image.height,
            rendering=image.rendering,
            mode=self.config.image_processor.mode,
            resized_to=image.size,
            weights_sha256=self.weights_sha256,
            adapter_sha256=self.adapter_sha256,
            dtype=dtype,
        )


def _weights_sha256(directory: Path) -> str | None:
    weights = WeightFiles.find(directory)
    return None if weights is None else weights.sha256()


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
