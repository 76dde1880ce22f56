"""vLLM's own server must be asked the same prompt, with the same engine."""

from pathlib import Path

import jinja2
import pytest
from tokenizers import Tokenizer

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import TOKENIZER_FILE, Prompt
from medmoe.server.engine.deployment.engine_arguments import engine_arguments
from medmoe.server.settings import Settings
from tests.benchmarks.support.vllm_server import chat_template, flags

BUNDLED: Path = Settings().model


@pytest.mark.parametrize("question", ["Is there a fracture?", "  What is shown:\n{{ CT }} or 'MRI'?  "])
def test_the_chat_template_yields_our_prompt(question: str) -> None:
    config = MedMoEConfig.from_directory(BUNDLED)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    rendered = jinja2.Template(chat_template(BUNDLED, config)).render(messages=[{"role": "user", "content": content}])
    # As transformers' tokenizer reads it: special tokens in the text are special tokens, and none are added.
    ids = Tokenizer.from_file(str(BUNDLED / TOKENIZER_FILE)).encode(rendered, add_special_tokens=False).ids
    assert ids == Prompt.from_directory(BUNDLED, config).question(question)


def test_engine_arguments_become_flags() -> None:
    arguments = {"model": "m", "dtype": "float32", "enforce_eager": True, "enable_mm_embeds": False, "block_size": None}
    assert flags(arguments) == [
        *("--model", "m", "--dtype", "float32"),
        *("--enforce-eager", "--no-enable-mm-embeds"),
    ]
    assert flags({"limit_mm_per_prompt": {"image": 1}, "served_model_name": ["a"]}) == [
        *("--limit-mm-per-prompt", '{"image": 1}'),
        *("--served-model-name", "a"),
    ]


def test_every_argument_of_our_engine_is_passed_on() -> None:
    settings = Settings()
    arguments = engine_arguments(settings, MedMoEConfig.from_directory(settings.model), on_cpu=True)
    given = {flag.removeprefix("--").removeprefix("no-") for flag in flags(arguments) if flag.startswith("--")}
    assert given == {name.replace("_", "-") for name, value in arguments.items() if value is not None}
