"""Compare training in bfloat16 with float32: steps a second and the loss, from the same weights on the same batches.

    python -m tests.benchmarks.kernels.training_precision CHECKPOINT --data DATA --dataset slake --features FOLDER

Both formats train the checkpoint's projector and decoder by `train_stage` (`runs/tiny/1-alignment` is where stage 2
begins), in segments: some steps in one format, then the same steps in the other, so that both meet the same machine.
Each segment has an optimizer and a learning rate schedule of its own.
"""

import argparse
import copy
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.config import DataConfig, Precision, StageConfig
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.mixture import read_mixture
from medmoe.training.data.sample import Sample
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.train_stage import train_stage

FORMATS: tuple[Precision, ...] = ("float32", "bfloat16")
BATCH, PACK = 4, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Report `steps` training steps in one format."""

    steps: int
    seconds: float
    loss: float
    """Mean over the steps."""


def train_segment(model: MedMoE, samples: list[Sample], *, collator: Collator, precision: Precision) -> Segment:
    """Train `model` in place on one pass over `samples`."""
    stage = StageConfig(
        name="precision",
        data=(),
        trainable=(r"projector\.", r"language_model\."),
        epochs=1,
        learning_rate=1e-3,
        batch_size=BATCH,
        pack=PACK,
        optimizer="muon",
    )
    runtime = RuntimeConfig(precision=precision, checkpoint_every=0, log_every=1)
    with tempfile.TemporaryDirectory() as directory:
        report = train_stage(
            model, stage, samples=samples, collator=collator, directory=Path(directory), seed=0, runtime=runtime
        )
    return Segment(steps=report["steps"], seconds=report["seconds"], loss=report["mean_loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--features", type=Path, required=True, help="where the tower's features are kept")
    parser.add_argument("--segments", type=int, default=8)
    parser.add_argument("--images", type=int, default=48, help="images of a segment, each with up to 8 questions")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = load_checkpoint(options.checkpoint)
    models = {precision: copy.deepcopy(start).train() for precision in FORMATS}
    mixture = read_mixture(
        [DataConfig(dataset=options.dataset, source="vqa")],
        root=options.data,
        domains=start.config.expert_domains,
        seed=0,
    )
    groups: dict[Path, list[Sample]] = {}
    for sample in mixture.samples:
        groups.setdefault(sample.image, []).append(sample)
    images = list(groups)[: options.segments * options.images]
    features = FeatureCache(options.features, tower=start.vision_tower, config=start.config, dtype=torch.bfloat16)
    features.fill(images)
    collator = Collator(Prompt.from_directory(options.checkpoint, start.config), features=features)

    print("steps | float32 steps/s | bfloat16 steps/s | ratio | float32 loss | bfloat16 loss")
    ratios, steps = [], 0
    for number in range(options.segments):
        chosen = images[number * options.images : (number + 1) * options.images]
        samples = [sample for image in chosen for sample in groups[image][:PACK]]
        order = FORMATS if number % 2 else FORMATS[::-1]
        found = {
            precision: train_segment(models[precision], samples, collator=collator, precision=precision)
            for precision in order
        }
        exact, rounded = found["float32"], found["bfloat16"]
        steps += exact.steps
        ratios.append(exact.seconds / rounded.seconds)
        print(
            f"{steps} | {exact.steps / exact.seconds:.2f} | {rounded.steps / rounded.seconds:.2f} | {ratios[-1]:.2f}"
            f" | {exact.loss:.4f} | {rounded.loss:.4f}",
            flush=True,
        )
    print(f"bfloat16 makes x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) the steps")


if __name__ == "__main__":
    main()
