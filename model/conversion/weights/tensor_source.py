"""Read all tensors of an upstream checkpoint one at a time, whatever its files."""

from pathlib import Path

import torch

from medmoe.model.conversion.weights.source_files import SourceWeights
from medmoe.model.conversion.weights.weight_file import TensorInfo, WeightFile, open_weight_file
from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import listed

# Mapped pages count as memory until their file is closed; reopening costs milliseconds.
_REOPEN_AFTER_BYTES = 2**30


class TensorSource:
    """Names, shapes and values of the tensors of a set of files; every tensor is in exactly one of them."""

    def __init__(self, files: SourceWeights) -> None:
        """Raise CheckpointError when a file is damaged, holds a tensor twice, or disagrees with the index."""
        self.tensors: dict[str, TensorInfo] = {}
        for path in files.files:
            infos = open_weight_file(path).infos()
            if twice := sorted(infos.keys() & self.tensors.keys()):
                raise CheckpointError(f"{listed(twice)}: in {path.name} and in another shard")
            self.tensors |= infos
        if files.index is not None:
            self._check_index(files.index)
        self._open: WeightFile | None = None
        self._read_bytes = 0

    def _check_index(self, index: dict[str, str]) -> None:
        problems = {
            "the index names tensors that no shard holds": index.keys() - self.tensors.keys(),
            "shards hold tensors that the index does not name": self.tensors.keys() - index.keys(),
            "the index puts tensors into the wrong shard": {
                name for name in index.keys() & self.tensors.keys() if index[name] != self.tensors[name].file.name
            },
        }
        for what, names in problems.items():
            if names:
                raise CheckpointError(f"{what}: {listed(sorted(names))}")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        """Return the tensor as stored. It may alias a mapped file, which stays mapped while the tensor lives."""
        path: Path = self.tensors[name].file
        if self._open is None or self._open.path != path or self._read_bytes > _REOPEN_AFTER_BYTES:
            self._open = None
            self._open = open_weight_file(path)
            self._read_bytes = 0
        tensor = self._open.read(name)
        self._read_bytes += tensor.nbytes
        return tensor

    def close(self) -> None:
        self._open = None
