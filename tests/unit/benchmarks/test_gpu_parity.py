"""When the engine counts as the reference on a GPU, tried on the reference itself and on broken copies of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import MoE, Router
from tests.benchmarks.gpu.parity import Answers, Distance, account, distance, reference, verdict
from tests.benchmarks.gpu.shapes import save_random_checkpoint, shape_config
from tests.engine.parity_cases import IMAGES, QUESTIONS
from tests.engine.reference import Reference

LAYERS = [0, 2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gpu") / "stablelm"
    save_random_checkpoint(directory, shape_config("stablelm", tiny=True), device="cpu")
    return directory


@pytest.fixture(scope="module")
def kept(checkpoint: Path) -> dict[str, np.ndarray]:
    """The reference's own answers in the place of an engine's."""
    model = reference(checkpoint, device="cpu", dtype="float32")
    found = {}
    for number, ids in enumerate(model.generate(QUESTIONS, IMAGES, max_tokens=4)):
        trace = model.trace(QUESTIONS[number], IMAGES[number], answer=ids)
        found[f"tokens.{number}"] = np.array(ids)
        found[f"ids.{number}"] = trace.log_probs.topk(20).indices.numpy()
    return found


def without_gate_bias(model: MedMoE) -> None:
    for module in model.modules():
        if isinstance(module, Router) and module.bias is not None:
            module.bias.data.zero_()


def without_shared_expert(model: MedMoE) -> None:
    for module in model.modules():
        if isinstance(module, MoE):
            module.shared_expert = None


def with_one_layers_experts_shifted(model: MedMoE) -> None:
    layer = next(module for module in model.modules() if isinstance(module, MoE))
    layer.experts = nn.ModuleList([*layer.experts[1:], layer.experts[0]])


def test_the_checkpoint_is_a_whole_one_and_read_as_the_service_reads_it(checkpoint: Path) -> None:
    theirs, ours = load_checkpoint(checkpoint), reference(checkpoint, device="cpu", dtype="float32").model
    for (name, one), (_, other) in zip(theirs.state_dict().items(), ours.state_dict().items(), strict=True):
        assert torch.equal(one, other), name


def test_no_two_answers_are_alike_and_every_expert_is_used(checkpoint: Path, kept: dict[str, np.ndarray]) -> None:
    assert len({tuple(kept[f"tokens.{number}"].tolist()) for number in range(len(QUESTIONS))}) == len(QUESTIONS)
    answers, gaps, best = account(reference(checkpoint, device="cpu", dtype="float32"), kept, LAYERS)
    assert len(np.unique(np.concatenate([chosen.ravel() for chosen in answers.experts]))) == 4
    assert max(gaps) == 0
    assert all(best)


@pytest.mark.parametrize("broken", [without_gate_bias, without_shared_expert, with_one_layers_experts_shifted])
def test_a_broken_engine_is_told_from_the_roundings_of_bfloat16(
    checkpoint: Path, kept: dict[str, np.ndarray], broken: Callable[[MedMoE], None]
) -> None:
    exact, _, _ = account(reference(checkpoint, device="cpu", dtype="float32"), kept, LAYERS)
    rounded, _, _ = account(reference(checkpoint, device="cpu", dtype="bfloat16"), kept, LAYERS)
    own = distance(rounded, exact)
    assert own.mean > 0
    assert all(verdict(own, own=own, largest_gap=0.0).values())
    model: Reference = reference(checkpoint, device="cpu", dtype="bfloat16")
    broken(model.model)
    wrong, _, _ = account(model, kept, LAYERS)
    holds = verdict(distance(wrong, exact), own=own, largest_gap=0.0)
    assert not holds["log_probs"]


def test_distance_is_what_counting_one_by_one_gives() -> None:
    random = np.random.default_rng(0)
    sides = [
        Answers(
            log_probs=[random.normal(size=(length, 3)) for length in (2, 5)],
            experts=[random.integers(0, 2, (length, 2, 1)) for length in (4, 6)],
        )
        for _ in range(2)
    ]
    errors, equal = [], []
    for a, b in zip(sides[0].log_probs, sides[1].log_probs, strict=True):
        errors += [abs(a[row][column] - b[row][column]) for row in range(len(a)) for column in range(3)]
    for one, other in zip(sides[0].experts, sides[1].experts, strict=True):
        equal += [list(one[row][layer]) == list(other[row][layer]) for row in range(len(one)) for layer in range(2)]
    found = distance(*sides)
    assert found.mean == pytest.approx(sum(errors) / len(errors))
    assert found.largest == max(errors)
    assert found.same_routing == sum(equal) / len(equal)


@pytest.mark.parametrize(
    ("engine", "gap", "broken"),
    [
        (Distance(mean=1e-6, largest=1e-3, same_routing=1.0), 0.0, set()),
        (Distance(mean=1e-6, largest=3e-3, same_routing=1.0), 0.0, {"log_probs"}),
        (Distance(mean=1e-6, largest=1e-3, same_routing=0.99), 0.0, {"routing"}),
        (Distance(mean=1e-6, largest=1e-3, same_routing=1.0), 0.1, {"tokens"}),
    ],
)
def test_float32_is_held_to_fixed_tolerances(engine: Distance, gap: float, broken: set[str]) -> None:
    holds = verdict(engine, own=None, largest_gap=gap)
    assert {name for name, held in holds.items() if not held} == broken
