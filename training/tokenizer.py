"""Train a byte-level BPE on the training split alone, for models whose decoder starts from scratch."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from medmoe.model.config import MedMoEConfig

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")


def train_tokenizer(texts: Iterable[str], *, config: MedMoEConfig, size: int) -> Tokenizer:
    """Return a tokenizer of at most `size` tokens; every byte is one, so any text can be encoded. Digits stand alone.

    Raises ValueError when config.json's special ids are not where this tokenizer puts them.
    """
    text = config.text_config
    ids = {"<pad>": text.pad_token_id, "<s>": text.bos_token_id, "</s>": text.eos_token_id}
    ids["<image>"] = config.image_token_id
    if any(ids[token] != place for place, token in enumerate(SPECIAL_TOKENS)):
        raise ValueError(f"special tokens must have the ids {dict(enumerate(SPECIAL_TOKENS))}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
