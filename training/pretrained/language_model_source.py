"""Define a pretrained decoder: its fields, its tensors by transformers' names, its tokenizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from medmoe.model.conversion.tokenizer.source import TokenizerSource


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModelSource:
    """Hold a pretrained decoder that has not been compared with an architecture yet."""

    name: str
    """What messages call it."""
    origin: str
    """Whole sentences for the model card."""
    fields: Mapping[str, object]
    """Fields of TextConfig that it states; vocabulary and special tokens are not among them."""
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]
    """The values of a tensor of `shapes`."""
    tokenizer: TokenizerSource
