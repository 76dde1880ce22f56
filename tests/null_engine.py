"""An engine that does nothing: what a request costs then is the service's own. And a server over it.

    python -m tests.null_engine [--tokens 8] [--delay SECONDS]

starts the real server, settings as always in MEDMOE_*, with this engine in the place of the one that they name. Unlike
the fake engine, which computes a distribution for each token, it hands out what it has made beforehand.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server import __main__ as server
from medmoe.server.engine.base import Engine, GenerationChunk, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.settings import Settings

_ANSWER = "left lower lobe with a small nodule and no pleural effusion "


class NullEngine(FakeEngine):
    """Always the same answer of `tokens` tokens, at most what was asked for."""

    def __init__(self, config: MedMoEConfig, prompt: Prompt, *, tokens: int, delay: float = 0.0) -> None:
        """`delay` is seconds between tokens."""
        super().__init__(config, prompt, delay=delay)
        words = prompt.answer(_ANSWER * tokens)[: tokens - 1]
        self._ids = (*words, config.text_config.eos_token_id)
        texts = [prompt.decode(words[:length]) for length in range(len(words) + 1)]
        self._texts = (*(longer[len(text) :] for text, longer in pairwise(texts)), "")

    async def _tokens(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
        length = min(request.max_tokens, len(self._ids))
        prompt_tokens = len(request.prompt_ids) - 1 + self._config.num_image_tokens
        text = self._config.text_config
        for place in range(length):
            await asyncio.sleep(self.delay)
            token, piece = self._ids[place], self._texts[place]
            if place < length - 1:
                yield GenerationChunk(text=piece, token_ids=(token,), logprobs=(-0.1,))
                continue
            yield GenerationChunk(
                text=piece,
                token_ids=(token,),
                logprobs=(-0.1,),
                finish_reason="stop" if length == len(self._ids) else "length",
                num_prompt_tokens=prompt_tokens,
                token_logprobs=dict.fromkeys(request.logprob_token_ids, -1.0),
                routed_experts=np.zeros(
                    (prompt_tokens + length - 1, text.num_hidden_layers, text.num_experts_per_tok), dtype=np.int16
                ),
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()

    def build_engine(settings: Settings) -> Engine:
        config = MedMoEConfig.from_directory(settings.model)
        prompt = Prompt.from_directory(settings.model, config)
        return NullEngine(config, prompt, tokens=options.tokens, delay=options.delay)

    server.build_engine = build_engine
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
