"""Fit a pretrained language model's tokenizer to a recipe: the ids that it states, each one a special token.

Where the image is the first id after the vocabulary (Phi-2, StableLM-2) this is what conversion of upstream checkpoints
does, and done by it; where it is one of the tokens that the model has and never used (SmolLM2), nothing is added.
"""

from tokenizers import Tokenizer

from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.tokenizer.foreign import check_text, guarded
from medmoe.model.conversion.tokenizer.source import TokenizerSource
from medmoe.model.conversion.tokenizer.vocabulary import build_vocabulary
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.errors import ConfigError
from medmoe.model.prompt import Prompt

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def fit_tokenizer(source: TokenizerSource, config: MedMoEConfig, *, rows: int) -> Tokenizer:
    """Return `source`'s tokenizer, changed in place, for an embedding that has `rows` rows before any is cut.

    Raises ConfigError naming what the recipe says otherwise than the tokenizer, CheckpointError for one that cannot
    spell a prompt.
    """
    if config.image_token_id == config.text_config.vocab_size:
        tokenizer = _completed(source, config, rows=rows)
    else:
        tokenizer = _as_it_is(source, config)
    # A copy, which Prompt may change: it refuses what a question could spell.
    Prompt(config, tokenizer=Tokenizer.from_str(tokenizer.to_str()))
    return tokenizer


def _completed(source: TokenizerSource, config: MedMoEConfig, *, rows: int) -> Tokenizer:
    text = config.text_config
    # A padding token that the tokenizer has not got is upstream's, which conversion knows by name.
    pad_token = source.tokenizer.id_to_token(text.pad_token_id)
    options = Options(eos_token=source.tokenizer.id_to_token(text.eos_token_id), pad_token=pad_token)
    said = UpstreamConfig({}, name="config.json")
    vocabulary = build_vocabulary(source, text.model_type, said, options, Report(), rows=rows)
    found = vocabulary.text_fields()
    if wrong := [
        f"{name} {getattr(text, name)} (it has {value})"
        for name, value in found.items()
        if getattr(text, name) != value
    ]:
        raise ConfigError(f"the recipe is not for this tokenizer: {', '.join(wrong)}")
    return vocabulary.tokenizer


def _as_it_is(source: TokenizerSource, config: MedMoEConfig) -> Tokenizer:
    text, tokenizer = config.text_config, source.tokenizer
    with guarded("the tokenizer cannot be used"):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        check_text(tokenizer, f"{config.prompt.system}{config.prompt.user}")
        check_text(tokenizer, f"{config.prompt.separator}What is shown?{config.prompt.assistant}")
        size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        if size != text.vocab_size:
            raise ConfigError(f"the recipe is not for this tokenizer: vocab_size {text.vocab_size} (it has {size})")
        special = {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        ids = {name: getattr(text, name) for name in _IDS} | {"image_token_id": config.image_token_id}
        if wrong := [f"{name} {id_}" for name, id_ in ids.items() if id_ is not None and id_ not in special]:
            raise ConfigError(f"the recipe is not for this tokenizer: no special token is {', '.join(wrong)}")
    return tokenizer
