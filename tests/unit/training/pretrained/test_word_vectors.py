"""Words that are close in the large model start close in the small one."""

import pytest
import torch
from torch import nn

from medmoe.model.conversion.tokenizer.source import TokenizerSource
from medmoe.model.errors import ConfigError
from medmoe.training.pretrained.language_model_source import LanguageModelSource
from medmoe.training.pretrained.word_vectors import initialize_from_word_vectors
from tests.support.checkpoints.tiny import tiny_tokenizer


def source(vectors: torch.Tensor) -> LanguageModelSource:
    return LanguageModelSource(
        name="large",
        origin="Made up.",
        fields={},
        shapes={},
        read={"model.embed_tokens.weight": vectors}.__getitem__,
        tokenizer=TokenizerSource(tiny_tokenizer(), "bpe"),
    )


def vectors(width: int) -> torch.Tensor:
    return torch.randn(tiny_tokenizer().get_vocab_size(), width, generator=torch.Generator().manual_seed(1))


def test_distances_are_kept_when_every_component_is() -> None:
    tokenizer, theirs = tiny_tokenizer(), vectors(32)
    embedding = nn.Embedding(len(theirs), 32)
    assert initialize_from_word_vectors(embedding, tokenizer=tokenizer, source=source(theirs)) == pytest.approx(1.0)
    words = [row for row in range(len(theirs)) if len(tokenizer.decode([row])) > 1 and row == spelt(row)]
    assert len(words) > 10
    ours = distances(embedding.weight[words].detach())
    wanted = distances(theirs[words])
    torch.testing.assert_close(ours / ours.max(), wanted / wanted.max(), rtol=1e-3, atol=1e-4)


def distances(points: torch.Tensor) -> torch.Tensor:
    return (points[:, None] - points[None]).norm(dim=-1)


def spelt(row: int) -> int | None:
    """The one token that this token's text is encoded as."""
    tokenizer = tiny_tokenizer()
    ids: list[int] = tokenizer.encode(tokenizer.decode([row]), add_special_tokens=False).ids
    return ids[0] if len(ids) == 1 else None


def test_the_leading_components_are_those_that_hold_most() -> None:
    theirs = vectors(32)
    theirs[:, 8:] *= 0.01
    embedding = nn.Embedding(len(theirs), 8)
    assert initialize_from_word_vectors(embedding, tokenizer=tiny_tokenizer(), source=source(theirs)) > 0.99


def test_special_tokens_keep_what_they_have_and_the_scale_is_that_of_random_rows() -> None:
    theirs = vectors(32)
    embedding = nn.Embedding(len(theirs), 16)
    before = embedding.weight.detach().clone()
    initialize_from_word_vectors(embedding, tokenizer=tiny_tokenizer(), source=source(theirs))
    assert torch.equal(embedding.weight[:4], before[:4])
    changed = (embedding.weight != before).all(dim=1)
    assert float(embedding.weight[changed].detach().std()) == pytest.approx(0.02, rel=0.05)


def test_vectors_that_are_too_narrow_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot fill an embedding of 64"):
        initialize_from_word_vectors(nn.Embedding(512, 64), tokenizer=tiny_tokenizer(), source=source(vectors(32)))
