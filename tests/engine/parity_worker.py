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
from tests.engine.local_engine import local_engine
from tests.engine.parity_cases import IMAGES, MAX_TOKENS, QUESTIONS

ANSWERS_FILE = "answers.npz"


def answers(directory: Path) -> dict[str, np.ndarray]:
    """Of every prompt: `tokens.N` [A], `log_probs.N` [A, V] and, where routed, `experts.N` [L, layers, K]."""
    config = MedMoEConfig.from_directory(directory)
    prompt, processor = Prompt.from_directory(directory, config), ImageProcessor.from_config(config)
    prompts = [
        {"prompt_token_ids": prompt.question(question), "multi_modal_data": {"image": processor.resize(image)}}
        for question, image in zip(QUESTIONS, IMAGES, strict=True)
    ]
    stop = [config.text_config.eos_token_id]
    with local_engine(directory, max_logprobs=-1) as engine:
        outputs = engine.generate(prompts, temperature=0, max_tokens=MAX_TOKENS, logprobs=-1, stop_token_ids=stop)
    kept: dict[str, np.ndarray] = {}
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
