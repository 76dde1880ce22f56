"""Answers the questions of parity_cases with the real engine, one checkpoint after the other, in one process.

    python -m tests.engine.parity_worker DIRECTORY...

vLLM is imported once (15 s), and a further engine costs a few seconds. The answers to DIRECTORY are left in
DIRECTORY/answers.npz.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from medmoe.model.config import MedMoEConfig
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import Branch
from medmoe.server.engine.scoring.branch_scorer import TokenTree
from tests.engine.local_engine import local_engine
from tests.engine.parity_cases import IMAGES, MAX_TOKENS, QUESTIONS

ANSWERS_FILE = "answers.npz"


def answers(directory: Path) -> dict[str, np.ndarray]:
    """Of every prompt: `tokens.N` [A], `log_probs.N` [A, V] and, where routed, `experts.N` [L, layers, K].

    After the last prompt: `branch.N` [tokens], `branch_log_probs.N` [V] and `branch_experts.N` [layers, K].
    """
    config = MedMoEConfig.from_directory(directory)
    prompt, processor = Prompt.from_directory(directory, config), ImageProcessor.from_config(config)
    prompts = [
        {
            "prompt_token_ids": prompt.question(question),
            "multi_modal_data": {"image": processor.resize(image)},
            "multi_modal_uuids": {"image": question},
        }
        for question, image in zip(QUESTIONS, IMAGES, strict=True)
    ]
    stop = [config.text_config.eos_token_id]
    with local_engine(directory, max_logprobs=-1) as engine:
        # Without `detokenize=False` vLLM spells out every token of the vocabulary at every position.
        outputs = engine.generate(
            prompts, temperature=0, max_tokens=MAX_TOKENS, logprobs=-1, stop_token_ids=stop, detokenize=False
        )
        # The beginnings of all answers, after the last prompt.
        paths = {tuple(output.outputs[0].token_ids[:length]) for output in outputs for length in (1, 2)}
        vocabulary = tuple(range(config.text_config.vocab_size))
        branches = [Branch(path=path, logprob_token_ids=vocabulary) for path in sorted(paths)]
        tree = TokenTree.of(prompt.expand(prompt.question(QUESTIONS[-1])), branches)
        arguments = (tree.token_ids, tree.parents, QUESTIONS[-1], tree.wanted)
        ((log_probs, experts),) = engine.llm.collective_rpc("score_branches", args=arguments)
    kept: dict[str, np.ndarray] = {}
    for number, branch in enumerate(branches):
        kept[f"branch.{number}"] = np.array(branch.path)
        kept[f"branch_log_probs.{number}"] = np.array(log_probs[number])
        chosen = np.frombuffer(experts[number], dtype=np.int32)
        kept[f"branch_experts.{number}"] = chosen.reshape(-1, config.text_config.num_experts_per_tok)
    for number, output in enumerate(outputs):
        answer = output.outputs[0]
        kept[f"tokens.{number}"] = np.array(answer.token_ids)
        rows = [[row[token].logprob for token in range(len(row))] for row in answer.logprobs]
        kept[f"log_probs.{number}"] = torch.tensor(rows).numpy()
        if answer.routed_experts is not None:
            kept[f"experts.{number}"] = np.asarray(answer.routed_experts)
    return kept


if __name__ == "__main__":
    for name in sys.argv[1:]:
        np.savez(Path(name) / ANSWERS_FILE, **answers(Path(name)))
