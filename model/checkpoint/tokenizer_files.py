"""Write the tokenizer's files so that transformers and vLLM load them without our code."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import TOKENIZER_FILE

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TOKENIZER_FILES = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE)


def write_tokenizer(tokenizer: Tokenizer, directory: Path, *, config: MedMoEConfig) -> list[Path]:
    """Write tokenizer.json and tokenizer_config.json; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    text = config.text_config
    names = {"eos_token": text.eos_token_id, "pad_token": text.pad_token_id}
    if text.bos_token_id is not None:
        names["bos_token"] = text.bos_token_id
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": text.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        **{name: tokenizer.id_to_token(id_) for name, id_ in names.items()},
    }
    tokenizer.save(str(directory / TOKENIZER_FILE))
    (directory / TOKENIZER_CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer_files(directory)


def tokenizer_files(directory: Path) -> list[Path]:
    """Return the tokenizer files of an existing directory."""
    return [directory / name for name in TOKENIZER_FILES]
