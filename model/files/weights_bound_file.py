"""Read JSON files that are bound to one set of weights by its digest. Torch-free."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from medmoe.model.errors import CheckpointError
from medmoe.model.files.strict_json import StrictFile

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WeightsBoundFile(StrictFile):
    """A file that names the weights it was made with."""

    MADE: ClassVar[str]
    """Verb of the message "FILE was MADE other weights"."""
    REMEDY: ClassVar[str]
    """Way out, before "or remove the file"."""

    format_version: Literal[1] = 1
    weights_sha256: Sha256
    """As `weight_files.weights_sha256`."""
    adapter_sha256: Sha256 | None = None
    """Digest of adapter_model.safetensors, where the checkpoint has one."""

    @classmethod
    def of_weights(cls, directory: Path, *, weights_sha256: str, adapter_sha256: str | None = None) -> Self | None:
        """Return the checkpoint's own file; None where it has none.

        Raises ConfigError when the file is malformed, CheckpointError when it was made with other weights.
        """
        path = directory / cls.FILE
        if not path.exists():
            return None
        found = cls.read(directory)
        if (found.weights_sha256, found.adapter_sha256) != (weights_sha256, adapter_sha256):
            raise CheckpointError(
                f"{path} was {cls.MADE} other weights, or the weights are damaged; copy the checkpoint again, or"
                f" {cls.REMEDY} or remove the file"
            )
        return found
