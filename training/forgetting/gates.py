"""Measure how the routers of a trained adapter treat old and new tasks."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from medmoe.model.errors import ConfigError
from medmoe.model.lora.checkpoint import load_trainable
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.batches.collator import Collator, ViewFeatures
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.evaluation_data import draw
from medmoe.training.lora.gate_statistics import gate_statistics
from medmoe.training.optimization.loss import answer_logits

GATES_FILE = "gates.json"
_SAMPLES = 64
"""Samples of each dataset on which gates are measured, at most."""
_BATCH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """Hold the mean over routers and tokens."""

    entropy: float
    """As a share of the entropy of equal gates: 1 mixes all experts equally, 0 chooses one."""
    anchor_mass: float
    """The anchors' share of the gate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredGates:
    """Hold the gates on samples of old and of new tasks."""

    old: Gates
    new: Gates


def gate_samples(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples of each dataset, drawn: the first ones are often of one class."""
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.dataset].append(sample)
    return [sample for own in found.values() for sample in draw(own, limit=_SAMPLES, seed=0)]


def measure_gates(
    checkpoint: Path, *, old: Sequence[Sample], new: Sequence[Sample], features: ViewFeatures, path: Path
) -> MeasuredGates | None:
    """Return the gates of the adapter in `checkpoint`, read from `path` where it exists and else written to it.

    None for an adapter without routers. Raises as `load_trainable`, and ConfigError for a file of another kind.
    """
    if path.exists():
        return _read(path)
    model, adapters = load_trainable(checkpoint)
    model.eval()
    if not adapters.routers():
        return None
    collator = Collator(Prompt.from_directory(checkpoint, model.config), features=features)

    @torch.inference_mode()
    def measured(samples: Sequence[Sample]) -> Gates:
        gates_TN: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
        for start in range(0, len(samples), _BATCH):
            batch = collator([(sample,) for sample in samples[start : start + _BATCH]])
            answer_logits(model, batch)
            for name, state in adapters.routers().items():
                assert state.gates is not None, "the model has just been run"
                gates_TN[name].append(state.gates[batch["attention_mask"].bool()])
        entropies, masses = [], []
        for name, state in adapters.routers().items():
            gates_BLN = torch.cat(gates_TN[name])[None]
            found = gate_statistics(
                gates_BLN,
                n_anchor=state.n_anchor,
                mask=torch.ones(gates_BLN.shape[:2], dtype=torch.bool),
                general=torch.tensor([True]),
                temperature=1.0,
            )
            entropies.append(found.entropy / math.log(gates_BLN.shape[-1]))
            masses.append(found.anchor_mass_general or 0.0)
        return Gates(entropy=statistics.fmean(entropies), anchor_mass=statistics.fmean(masses))

    found = MeasuredGates(old=measured(old), new=measured(new))
    write_atomically(path, json.dumps(asdict(found)) + "\n")
    return found


def _read(path: Path) -> MeasuredGates:
    try:
        found = json.loads(path.read_text())
        return MeasuredGates(old=Gates(**found["old"]), new=Gates(**found["new"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} does not hold measured gates; remove it, and they are measured again") from error
