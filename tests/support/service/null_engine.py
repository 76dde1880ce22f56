"""Run a server over an engine that answers at once, to measure the service alone.

    python -m tests.support.service.null_engine [--tokens 8]

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
from medmoe.server.engine.base import BranchScore, GenerationChunk, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from tests.support.service.served_engine import serve_over

_ANSWER = "left lower lobe with a small nodule and no pleural effusion "


class NullEngine(FakeEngine):
    """Return the same answer of `tokens` tokens, or fewer if the request asks for fewer."""

    def __init__(self, config: MedMoEConfig, prompt: Prompt, *, tokens: int) -> None:
        super().__init__(config, prompt)
        self.takes_branches = True
        words = prompt.answer(_ANSWER * tokens)[: tokens - 1]
        self._ids = (*words, config.text_config.eos_token_id)
        texts = [prompt.decode(words[:length]) for length in range(len(words) + 1)]
        self._texts = (*(longer[len(text) :] for text, longer in pairwise(texts)), "")

    async def _tokens(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
        length = min(request.max_tokens, len(self._ids))
        prompt_tokens = len(request.prompt_ids) - 1 + self._config.num_image_tokens
        config = self._config.text_config
        routed = np.zeros(
            (prompt_tokens + length - 1, config.num_hidden_layers, config.num_experts_per_tok), dtype=np.int16
        )
        sent = 0 if request.whole else length - 1
        for place in range(sent):
            # As often as an engine would let others run.
            await asyncio.sleep(0)
            yield GenerationChunk(text=self._texts[place], token_ids=(self._ids[place],), logprobs=(-0.1,))
        await asyncio.sleep(0)
        yield GenerationChunk(
            text="".join(self._texts[sent:length]),
            token_ids=self._ids[sent:length],
            logprobs=(-0.1,) * (length - sent),
            finish_reason="stop" if length == len(self._ids) else "length",
            num_prompt_tokens=prompt_tokens,
            token_logprobs=dict.fromkeys(request.logprob_token_ids, -1.0),
            routed_experts=routed,
            branches=tuple(
                BranchScore(token_logprobs=dict.fromkeys(branch.logprob_token_ids, -1.0), routed_experts=routed[-1:])
                for branch in request.branches
            ),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8)
    options = parser.parse_args()
    return serve_over(lambda config, prompt: NullEngine(config, prompt, tokens=options.tokens))


if __name__ == "__main__":
    sys.exit(main())
