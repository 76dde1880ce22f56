"""The image reader as a child process has it, here in the test's own process, and an environment without settings."""

from collections.abc import Callable
from typing import Any

import pytest

from medmoe.server.imaging.decoder_config import DecoderConfig, ImageLimits
from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.schemas.images import ImageFields
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config

Read = Callable[..., DecodedImage]


def decoder_config(**changes: Any) -> DecoderConfig:
    """Everything at the deployment's defaults, but images from 1 pixel on."""
    limits = {"max_pixels": 40_000_000, "min_side": 1, "max_aspect_ratio": 20.0, "max_frames": 2000}
    limits |= {name: changes.pop(name) for name in list(changes) if name in limits}
    config = tiny_config()
    return DecoderConfig(
        **{
            "processor": config.image_processor,
            "size": config.vision_config.image_size,
            "limits": ImageLimits(**limits),
            "burned_in": "refuse",
            "memory_bytes": 2**30,
            "cpu_seconds": 30,
            "wall_seconds": 45,
        }
        | changes
    )


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away every setting of the environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MEDMOE_{name.upper()}", raising=False)


@pytest.fixture
def read() -> Read:
    """`read(data, window="lung")`; settings of the deployment in `config`."""

    def call(sent: str | bytes, *, config: dict[str, Any] | None = None, **fields: Any) -> DecodedImage:
        return ImageReader(decoder_config(**(config or {}))).read(sent, ImageFields(**fields))

    return call
