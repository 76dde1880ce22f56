"""Record what a reader needs to repeat an evaluation."""

import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from medmoe.model.config import ADAPTER_WEIGHTS_FILE, CONFIG_FILE
from medmoe.model.files.digest import checkpoint_file_sha256
from medmoe.model.files.weight_files import weights_sha256
from medmoe.training.data.leakage.trained_images import TrainedImages
from medmoe.training.evaluation.evaluation_data import EvaluationData

_MODULE = "medmoe.training.evaluation"
_PACKAGES = ("medmoe", "torch", "transformers")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointIdentity:
    """Identify a checkpoint by the SHA-256 of the files that decide what it answers."""

    config_sha256: str
    weights_sha256: str
    adapter_sha256: str | None
    """None without adapters."""

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Hash the files. Raises CheckpointError when config.json or the weights cannot be read."""
        adapter = directory / ADAPTER_WEIGHTS_FILE
        return cls(
            config_sha256=checkpoint_file_sha256(directory / CONFIG_FILE),
            weights_sha256=weights_sha256(directory),
            adapter_sha256=checkpoint_file_sha256(adapter) if adapter.exists() else None,
        )


def trained_images(directory: Path, identity: CheckpointIdentity) -> TrainedImages | None:
    """Return the checkpoint's own list of training images; None without one. Raises CheckpointError for another's."""
    return TrainedImages.of_weights(
        directory, weights_sha256=identity.weights_sha256, adapter_sha256=identity.adapter_sha256
    )


def provenance(*, answered_by: dict[str, Any], data: EvaluationData, settings: dict[str, Any]) -> dict[str, Any]:
    """Return all facts as JSON values."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": commit(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "answered_by": answered_by,
        "data": [asdict(file) for file in data.files],
        "settings": settings,
    }


def commit() -> str | None:
    """Return the commit that this code was checked out from, with `-dirty` when it was changed since; None when
    installed.
    """
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).resolve()
    arguments = [git, "--no-optional-locks", "-C", str(here.parent)]
    try:
        # An environment may lie inside another repository, whose commit says nothing about this code.
        subprocess.run([*arguments, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)  # noqa: S603
        found = subprocess.run(  # noqa: S603
            [*arguments, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def _command() -> str:
    """Return the command as it was typed, without the folders of Python and of the script."""
    program = Path(sys.argv[0])
    typed = ["python", "-m", _MODULE] if program.name == "__main__.py" else [program.name]
    return shlex.join([*typed, *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
