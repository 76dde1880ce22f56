"""Carry out the experiment: train and evaluate every method with every seed, and write the results."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.lora.checkpoint import base_identity, load_adapted
from medmoe.model.prompt import Prompt
from medmoe.training.ablation.comparison import compare
from medmoe.training.ablation.trial import RESULT_FILE, Answer, Trial, trial, untrained
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import Split
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.evaluation.predict.predictors import LocalPredictor, with_progress
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.evaluation.provenance import commit
from medmoe.training.evaluation.report.plots import can_draw
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.forgetting.figure import draw_forgetting
from medmoe.training.forgetting.gates import GATES_FILE, MeasuredGates, gate_samples, measure_gates
from medmoe.training.forgetting.methods import METHODS, Adaptation, Method
from medmoe.training.forgetting.report import forgetting_report
from medmoe.training.forgetting.summary import summarize
from medmoe.training.lora.config import LoRARunConfig
from medmoe.training.optimization.distributed import own_device
from medmoe.training.precision import fast_autocast, fast_dtype
from medmoe.training.run_directory import claim_directory, sole_run

log = logging.getLogger(__name__)
JSON_FILE, MARKDOWN_FILE, FIGURE_FILE = "forgetting.json", "forgetting.md", "forgetting.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Configure the experiment. Finished runs below `output` are kept."""

    base: Path
    data: Path
    output: Path
    features: Path
    """A folder of tower features."""
    adaptation: Adaptation
    old: EvaluationData
    new: EvaluationData
    split: Split
    max_tokens: int = 32
    evaluation_batch: int = 16

    def __call__(self, methods: Sequence[str], seeds: Iterable[int]) -> str:
        """Run what is not finished, write the results after each run, and return the report.

        Raises ConfigError when `output` holds another experiment or another process writes to it, and what
        training raises.
        """
        with sole_run(self.output):
            claim_directory(self.output, json.dumps(self.setup(), indent=2) + "\n", made_of="experiment")
            return self._run(methods, seeds)

    def _run(self, methods: Sequence[str], seeds: Iterable[int]) -> str:
        features = self._filled_features()
        answer = self._answering(features)
        done = [untrained(self.base, directory=self.output / "base", answer=answer)]
        gates: defaultdict[str, list[MeasuredGates]] = defaultdict(list)
        order = [(METHODS[name], name, seed) for seed in seeds for name in methods]
        text = ""
        for number, (method, name, seed) in enumerate(order, start=1):
            log.info("%s, seed %d (%d of %d)", name, seed, number, len(order))
            done.append(self._trial(method, name, seed=seed, answer=answer))
            if (found := self._gates(method, name, seed=seed, features=features)) is not None:
                gates[name].append(found)
            text = self._write(done, gates)
        return text

    def is_finished(self, name: str, seed: int) -> bool:
        """Return whether a method's run with this seed has its result."""
        return (self._directory(name, seed) / RESULT_FILE).exists()

    def setup(self) -> dict[str, Any]:
        """Return what must not change while runs join a table."""
        adaptation = asdict(self.adaptation)
        del adaptation["base"]
        return {
            "base": base_identity(self.base).model_dump(),
            "adaptation": json.loads(json.dumps(adaptation)),
            "old": [asdict(file) for file in self.old.files],
            "new": [asdict(file) for file in self.new.files],
            "split": self.split,
            "max_tokens": self.max_tokens,
        }

    @property
    def _samples(self) -> tuple[Sample, ...]:
        return (*self.old.samples, *self.new.samples)

    def _directory(self, name: str, seed: int) -> Path:
        return self.output / f"{name}-seed{seed}"

    def _trial(self, method: Method, name: str, *, seed: int, answer: Answer) -> Trial:
        return trial(
            name,
            method(self.adaptation, seed=seed),
            base=self.base,
            data=self.data,
            directory=self._directory(name, seed),
            features=self.features,
            answer=answer,
        )

    def _gates(self, method: Method, name: str, *, seed: int, features: FeatureCache) -> MeasuredGates | None:
        config, directory = method(self.adaptation, seed=seed), self._directory(name, seed)
        if not isinstance(config, LoRARunConfig) or all(layer.n_experts == 1 for layer in config.layers):
            return None
        return measure_gates(
            directory / config.name,
            old=gate_samples(self.old.samples),
            new=gate_samples(self.new.samples),
            features=features,
            path=directory / GATES_FILE,
        )

    def _filled_features(self) -> FeatureCache:
        """Return the features of every evaluated image; the tower is frozen in every method."""
        model = load_checkpoint(self.base)
        device = own_device()
        tower = model.vision_tower.to(device)
        features = FeatureCache(self.features, tower=tower, config=model.config, dtype=fast_dtype(device))
        features.fill(sample.image for sample in self._samples)
        return features

    def _answering(self, features: FeatureCache) -> Answer:
        device = own_device()

        def answer(checkpoint: Path) -> list[Prediction]:
            model = load_adapted(checkpoint).to(device)
            predictor = LocalPredictor(
                model,
                prompt=Prompt.from_directory(checkpoint, model.config),
                features=features,
                max_tokens=self.max_tokens,
                batch_size=self.evaluation_batch,
            )
            with fast_autocast(device):
                return list(with_progress(predictor.predict)(self._samples))

        return answer

    def _write(self, done: Sequence[Trial], gates: dict[str, list[MeasuredGates]]) -> str:
        """Write the results so far; return the report."""
        old, new = (dict.fromkeys(sample.dataset for sample in read.samples) for read in (self.old, self.new))
        rows = compare(done, samples=self._samples, reference="base")
        summaries = summarize(rows, old=old, new=new, gates=gates)
        setup = self.setup()
        facts = {
            "format_version": 1,
            "commit": commit(),
            "setup": setup,
            "summaries": [summary.to_dict() for summary in summaries],
            "rows": [row.to_dict() for row in rows],
        }
        write_atomically(self.output / JSON_FILE, json.dumps(facts, indent=2, allow_nan=False) + "\n")
        text = forgetting_report(rows, summaries, setup=setup, old=old, new=new)
        write_atomically(self.output / MARKDOWN_FILE, text)
        if can_draw():
            draw_forgetting(summaries, self.output / FIGURE_FILE)
        return text
