"""Every backbone and method: what the engine serves is what the reference computes. Prints the table (`-s` shows it).

    pytest tests/engine/test_parity_table.py -s
    PARITY_TABLE=table.md pytest tests/engine/test_parity_table.py     # also writes it

The engine's log-probabilities over the whole vocabulary, its greedy tokens and its routing, against one full forward of
the slow model in float32.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.engine.parity_cases import IMAGES, MAX_TOKENS, PROMPTS, QUESTIONS, Case, cases
from tests.engine.parity_worker import ANSWERS_FILE
from tests.engine.reference import Reference

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LOG_PROB_TOLERANCE = 1e-4
ROOT = Path(__file__).parents[2]
CASES = cases()
_HEADER = "| backbone | method | varied | largest log-prob error | greedy tokens | routing |\n|---|---|---|---|---|---|"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """How far engine and reference are apart on one checkpoint."""

    error: float
    """Largest difference of a log-probability, over prompts, positions (the prompt's end first), branches of the last
    prompt, and vocabulary."""
    same_tokens: int
    """Prompts with equal greedy answers."""
    different_answers: int
    """Distinct answers of the reference."""
    routed: int
    """Positions times MoE layers."""
    same_routing: int
    """Of these, where the same experts were chosen."""
    experts_used: int

    def markdown(self, case: Case) -> str:
        routing = f"{self.same_routing}/{self.routed}" if self.routed else "-"
        return (
            f"| {case.backbone} | {case.method} | {case.also} | {self.error:.1e} | {self.same_tokens}/{PROMPTS}"
            f" | {routing} |"
        )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("parity")
    return {case.name: case.save(parent) for case in CASES}


@pytest.fixture(scope="module")
def table(checkpoints: dict[str, Path]) -> dict[str, Row]:
    """Rows by case; all engines run before the first comparison."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDMOE_")}
    command = [sys.executable, "-m", "tests.engine.parity_worker", *map(str, checkpoints.values())]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-8000:]
    rows = {name: compare(directory) for name, directory in checkpoints.items()}
    lines = "\n".join([_HEADER, *(rows[case.name].markdown(case) for case in CASES)])
    print(f"\n{lines}")
    if path := os.environ.get("PARITY_TABLE"):
        Path(path).write_text(lines + "\n")
    return rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.directory)
def test_the_engine_is_the_reference(table: dict[str, Row], case: Case) -> None:
    row = table[case.name]
    assert row.error < LOG_PROB_TOLERANCE
    assert row.same_tokens == PROMPTS
    assert row.same_routing == row.routed
    assert bool(row.routed) == (case.shape.get("moe_layers") != ())
    # The comparison would be worth little if every prompt had the same answer, or every token the same expert.
    assert row.different_answers >= PROMPTS // 2
    assert row.experts_used == (case.experts if row.routed else 0)


def compare(directory: Path) -> Row:
    """Raises AssertionError where there is nothing to compare."""
    reference = Reference(directory)
    answers = np.load(directory / ANSWERS_FILE)
    expected = reference.generate(QUESTIONS, IMAGES, max_tokens=MAX_TOKENS)
    moe_layers = list(reference.model.config.text_config.moe_layers)
    error, same_tokens, routed, same_routing = 0.0, 0, 0, 0
    used: set[int] = set()
    for number, (question, image) in enumerate(zip(QUESTIONS, IMAGES, strict=True)):
        tokens = answers[f"tokens.{number}"].tolist()
        same_tokens += tokens == expected[number]
        trace = reference.trace(question, image, answer=tokens)
        theirs, ours = answers[f"log_probs.{number}"], trace.log_probs.numpy()
        assert theirs.shape == ours.shape
        error = max(error, float(np.abs(theirs - ours).max()))
        if moe_layers:
            # Which expert of the chosen ones comes first is nobody's promise.
            chosen = np.sort(answers[f"experts.{number}"][:, moe_layers], axis=-1)
            wanted = np.sort(trace.experts[:, moe_layers], axis=-1)
            assert chosen.shape == wanted.shape
            routed += chosen.shape[0] * chosen.shape[1]
            same_routing += int((chosen == wanted).all(axis=-1).sum())
            used |= set(chosen.ravel().tolist())
    for number in range(sum(name.startswith("branch.") for name in answers)):
        trace = reference.trace(QUESTIONS[-1], IMAGES[-1], answer=[*answers[f"branch.{number}"].tolist(), 0])
        difference = answers[f"branch_log_probs.{number}"] - trace.log_probs[-1].numpy()
        error = max(error, float(np.abs(difference).max()))
        if moe_layers:
            chosen = np.sort(answers[f"branch_experts.{number}"][moe_layers], axis=-1)
            routed += len(moe_layers)
            same_routing += int((chosen == np.sort(trace.experts[-1, moe_layers], axis=-1)).all(axis=-1).sum())
    return Row(
        error=error,
        same_tokens=same_tokens,
        different_answers=len({tuple(answer) for answer in expected}),
        routed=routed,
        same_routing=same_routing,
        experts_used=len(used),
    )
