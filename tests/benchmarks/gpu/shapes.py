"""Make checkpoints of the published sizes with random weights on the GPU, and stream them to disk.

The weights keep a decoder of that depth in a sound state. Products keep the scale of what they are given and layers add
little to what they find, as trained ones do: otherwise rounding grows from layer to layer, and parity in 16 bit would
say nothing. Attention is sharp enough that images and questions matter, and gates are decided.
"""

import math
import re
import shutil
from pathlib import Path

import torch

from medmoe.model.checkpoint.io import expected_shapes
from medmoe.model.checkpoint.tensor_writer import TensorSpec, TensorWriter
from medmoe.model.checkpoint.tokenizer_files import write_tokenizer
from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.files.weight_files import WEIGHTS_FILE
from medmoe.training.recipes.published import phi_2, stablelm_1_6b
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer

_PUBLISHED = {"stablelm": stablelm_1_6b, "phi": phi_2}
_TINY: dict[str, dict[str, int]] = {
    # Heads of 32 and of 80, as Phi-2's: vLLM's attention takes them.
    "stablelm": {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4},
    "phi": {"hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 2},
}
_SPREAD = 0.02
_SHARP = 2.0
"""What decides is so many times larger than what keeps the scale."""
_GATE_BIAS = 0.5
_DECIDES = re.compile(r"^language_model\..*(\.[qk]_proj|\.gate|lm_head)\.weight$")
_INTO_RESIDUAL = re.compile(r"\.(o_proj|out_proj|dense|down_proj|fc2)\.weight$")
_NORM = re.compile(r"norm\d?\.weight$")


def shape_config(shape: str, *, tiny: bool) -> MedMoEConfig:
    """Of `stablelm` or `phi`; the tiny ones have everything but the size, and the image token beyond the vocabulary."""
    if tiny:
        return tiny_config(model_type=shape, tower="clip", downsample_factor=1, out_of_vocabulary=True, **_TINY[shape])
    return _PUBLISHED[shape]().architecture


def save_random_checkpoint(directory: Path, config: MedMoEConfig, *, device: str, seed: int = 0) -> int:
    """Write a whole checkpoint directory tensor by tensor, in `config.dtype`; returns the bytes of its weights."""
    directory.mkdir(parents=True)
    dtype = getattr(torch, config.dtype)
    specs = [TensorSpec(name, dtype, shape) for name, shape in expected_shapes(config).items()]
    generator = torch.Generator(device).manual_seed(seed)
    with TensorWriter(directory / WEIGHTS_FILE, specs) as writer:
        for spec in specs:
            mean, deviation = _distribution(spec.name, spec.shape, config)
            values = torch.randn(spec.shape, generator=generator, device=device, dtype=torch.float32)
            writer.write(spec.name, values.mul_(deviation).add_(mean).to(dtype).cpu())
    (directory / CONFIG_FILE).write_text(config.to_json())
    made = directory / "tokenizer"
    for path in write_tokenizer(tiny_tokenizer(config), made, config=config):
        path.rename(directory / path.name)
    made.rmdir()
    return sum(spec.nbytes for spec in specs)


def room_for(config: MedMoEConfig, directory: Path) -> bool:
    """Whether the disk that holds `directory` has space for the weights."""
    needed = sum(math.prod(shape) for shape in expected_shapes(config).values())
    return shutil.disk_usage(directory).free > needed * getattr(torch, config.dtype).itemsize * 1.1


def _distribution(name: str, shape: tuple[int, ...], config: MedMoEConfig) -> tuple[float, float]:
    """Mean and deviation of a tensor's values."""
    if len(shape) == 1:
        if name.endswith("gate.bias"):
            return 0.0, _GATE_BIAS
        return (1.0 if _NORM.search(name) else 0.0), _SPREAD
    if "embed_tokens" in name:
        return 0.0, 1.0
    if "position_embedding" in name:
        return 0.0, _SPREAD
    # Of what is summed up for one output: columns, and for the tower's convolution its whole window.
    deviation = 1 / math.sqrt(math.prod(shape[1:]))
    if _INTO_RESIDUAL.search(name):
        part = config.text_config if name.startswith("language_model.") else config.vision_config
        return 0.0, deviation / math.sqrt(2 * part.num_hidden_layers)
    return 0.0, deviation * (_SHARP if _DECIDES.search(name) else 1.0)
