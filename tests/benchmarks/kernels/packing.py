"""Time training steps with an image's questions in one sequence, and with a sequence for each question.

    python -m tests.benchmarks.kernels.packing CHECKPOINT

On the checkpoint's decoder (`model/pretrained/medmoe-tiny` does), with random features and made-up questions of about
SLAKE's length; loss and gradients of both are the same (tests/unit/training/data/test_packing.py). The two are timed in
turn within one run, forward and backward; what counts is the ratio.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.batches.packing import Pack
from medmoe.training.data.sample import Sample
from medmoe.training.optimization.loss import AnswerLoss
from medmoe.training.stage_transition import set_trainable

IMAGES, ROUNDS = 6, 7
QUESTION, ANSWER = "Which part of the body does the left side of this image show?", "the right lung"


def samples(questions: int) -> list[list[Sample]]:
    """`questions` on each image."""
    return [
        [
            Sample(
                id=f"{image}/{number}",
                dataset="made-up",
                image=Path(f"/{image}.png"),
                split="train",
                question=QUESTION,
                answer=ANSWER,
            )
            for number in range(questions)
        ]
        for image in range(IMAGES)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_checkpoint(options.checkpoint).train()
    set_trainable(model, (r"projector\.", r"language_model\."))
    vision = model.config.vision_config
    features = torch.randn(vision.num_patches, vision.hidden_size)
    prompt = Prompt.from_directory(options.checkpoint, model.config)
    collator = Collator(prompt, features=lambda image, view: features)
    objective = AnswerLoss(model)

    def seconds(packs: list[Pack]) -> float:
        batch = collator(packs)
        start = time.perf_counter()
        objective(**batch)["loss"].backward()
        model.zero_grad()
        return time.perf_counter() - start

    print(
        f"{options.checkpoint.name}, {model.config.num_image_tokens} image tokens, {options.threads} threads, float32"
    )
    print("questions an image | one sequence each, s | packed, s | ratio")
    for questions in (1, 2, 4, 8):
        groups = samples(questions)
        alone, packed = [(sample,) for group in groups for sample in group], [tuple(group) for group in groups]
        seconds(packed)
        times = [(seconds(alone), seconds(packed)) for _ in range(ROUNDS)]
        middle = [statistics.median(column) for column in zip(*times, strict=True)]
        ratio = statistics.median(one / other for one, other in times)
        print(f"{questions} | {middle[0]:.3f} | {middle[1]:.3f} | {ratio:.2f}")


if __name__ == "__main__":
    main()
