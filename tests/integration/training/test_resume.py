"""A run that is killed within a stage and started again is the run that was never killed."""

import json
import logging
import logging.handlers
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medmoe.model.checkpoint.io import load_checkpoint, model_tensors
from medmoe.training.pipeline import Run
from tests.support.images.colours import RUNTIME, colours_recipe, write_colours

torch.set_num_threads(1)

STEP = 7
"""Of the second stage, the first to have so many: after the checkpoint of step 4, before that of step 8."""


@pytest.fixture(scope="module", params=["adamw", "muon"])
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    """One directory of a run that nothing happened to, and one of a run that was killed, and what it had left."""
    root = tmp_path_factory.mktemp("runs")
    data = write_colours(root / "data")
    recipe = colours_recipe(dropout=0.2, optimizer=request.param)
    Run(recipe, data=data, directory=root / "whole", runtime=RUNTIME)()
    command = [
        sys.executable,
        "-m",
        "tests.support.images.colours",
        str(data),
        str(root / "killed"),
        "--dropout",
        "0.2",
    ]
    command += ["--optimizer", request.param]
    killed = subprocess.run(
        [*command, "--kill-at-step", str(STEP)], cwd=Path(__file__).parents[3], capture_output=True, timeout=550
    )
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    logs = root / "killed" / "logs"
    assert [path.name for path in logs.glob("*/checkpoint-*")] == ["checkpoint-4"]
    assert not (root / "killed" / "2-instruction_tuning").exists()
    # As if the next one had been half-written.
    (logs / "instruction_tuning" / ".checkpoint.new" / "checkpoint-8").mkdir(parents=True)
    torch.rand(3)
    seen = logging.handlers.MemoryHandler(1000)
    logger = logging.getLogger("medmoe.training.optimization.train_stage")
    logger.setLevel(logging.INFO)
    logger.addHandler(seen)
    Run(recipe, data=data, directory=root / "killed", runtime=RUNTIME)()
    logger.removeHandler(seen)
    assert "instruction_tuning: continued from checkpoint-4" in [record.getMessage() for record in seen.buffer]
    return {"whole": root / "whole", "killed": root / "killed"}


def losses(run: Path) -> dict[str, list[dict[str, Any]]]:
    report = json.loads((run / "report.json").read_text())
    return {name: report[name]["losses"] for name in ("alignment", "instruction_tuning", "moe_tuning")}


def test_a_killed_run_logs_the_losses_of_one_that_was_not(runs: dict[str, Path]) -> None:
    whole = losses(runs["whole"])
    assert [row["step"] for row in whole["instruction_tuning"]] == list(range(1, 14))
    assert losses(runs["killed"]) == whole


@pytest.mark.parametrize("stage", ["1-alignment", "2-instruction_tuning", "3-router", "colours"])
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(runs: dict[str, Path], stage: str) -> None:
    whole, killed = (model_tensors(load_checkpoint(run / stage)) for run in runs.values())
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_finished_stages_keep_no_step_checkpoints(runs: dict[str, Path]) -> None:
    for run in runs.values():
        assert {path.name for path in run.glob("logs/*/*")} == {"tensorboard"}


def test_a_run_says_how_fast_it_was_and_what_it_took(runs: dict[str, Path]) -> None:
    stage = json.loads((runs["whole"] / "report.json").read_text())["instruction_tuning"]
    assert stage["tokens_per_second"] > stage["answer_tokens_per_second"] > stage["samples_per_second"] > 0
    assert stage["peak_memory_bytes"] > 50e6
