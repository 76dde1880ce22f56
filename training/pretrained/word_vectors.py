"""Initialize a small decoder's embeddings from a pretrained model of another width and vocabulary.

Each token of the small vocabulary is spelt in the large model's tokens and starts as their mean embedding, projected
onto the leading principal components of all tokens. So words of similar meaning start with similar vectors, which some
thousand questions alone would teach slowly.
"""

import torch
from tokenizers import Tokenizer
from torch import nn

from medmoe.model.errors import ConfigError
from medmoe.training.pretrained.language_model_source import LanguageModelSource

_EMBEDDING = "model.embed_tokens.weight"
_DEVIATION = 0.02
"""Standard deviation of randomly initialized rows."""
_NO_TEXT = "�"
"""What a token decodes to that is a part of a character."""


@torch.no_grad()
def initialize_from_word_vectors(
    embedding: nn.Embedding, *, tokenizer: Tokenizer, source: LanguageModelSource
) -> float:
    """Fill the rows of `embedding` [V, D] whose tokens are text; returns the share of variance that D components hold.

    Special tokens and parts of characters keep what they have. The result has the standard deviation of the random
    rows. Raises ConfigError when the source's vectors are narrower than D.
    """
    theirs = source.read(_EMBEDDING).float()
    width = embedding.weight.shape[1]
    if theirs.shape[1] < width:
        raise ConfigError(f"word vectors of {theirs.shape[1]} numbers cannot fill an embedding of {width}")
    rows, means = [], []
    for row in range(min(tokenizer.get_vocab_size(), len(embedding.weight))):
        # Special tokens decode to nothing.
        text = tokenizer.decode([row])
        spelt = source.tokenizer.tokenizer.encode(text, add_special_tokens=False).ids if text else []
        if spelt and _NO_TEXT not in text:
            rows.append(row)
            means.append(theirs[spelt].mean(dim=0))
    centred = torch.stack(means)
    centred -= centred.mean(dim=0)
    _, singular, components = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ components[:width].T
    filled = projected * (_DEVIATION / projected.std())
    embedding.weight[torch.tensor(rows), : filled.shape[1]] = filled.to(embedding.weight.dtype)
    return float(singular[:width].square().sum() / singular.square().sum())
