"""The run on a GPU as a program: without one, and what it prints of what it has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.gpu.__main__ import is_well, outcome
from tests.benchmarks.gpu.budget import Budget, Part
from tests.benchmarks.gpu.part import checkpoint
from tests.benchmarks.gpu.table import report, table

ROOT = Path(__file__).parents[3]
CEILINGS = {
    "device": "cuda",
    "name": "NVIDIA H100",
    "torch": "2.11",
    "dtype": "bfloat16",
    "bandwidth": 3e12,
    "multiplication": 6e14,
}
DECODE = {
    "batch": 64,
    "context": 680.0,
    "seconds": 0.006,
    "bytes": {"total": 15e9},
    "experts_expected": 4.0,
    "experts_counted": 3.9,
}


def part(part_: str, status: str = "done", **figures: Any) -> dict[str, Any]:
    told = {"name": part_, "shape": "stablelm", "dtype": "bfloat16", "label": part_}
    return told | {"status": status, "figures": figures}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_exits_with_2() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.gpu"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith("no GPU: ")
    assert len(process.stderr.splitlines()) == 1


def test_a_step_is_set_against_the_bandwidth_of_its_own_run() -> None:
    ceilings = part("ceilings", **CEILINGS)
    prefill = {"prompts": 2, "tokens": 2000, "seconds": 0.1, "tokens_per_second": 2e4, "flops": 3e13}
    steps = part("steps", decode=[DECODE], prefill=prefill, too_large=[256])
    eager = part("eager", decode=[DECODE | {"seconds": 0.012}])
    told = report({"dry_run": False, "parts": [ceilings, steps, eager]})
    # 15 GB at 3 TB/s are 5 ms; 3e14 of 6e14 operations a second.
    assert "| stablelm | on | 64 | 680 | 4.00 | 3.90 | 15 | 6 | 5 | 1.2 |" in told
    assert "| stablelm | off | 64 | 680 | 4.00 | 3.90 | 15 | 12 | 5 | 2.4 |" in told
    assert "| 50.0% | - |" in told
    assert "no room for keys and values of 256 sequences" in told
    assert "DRY RUN" not in told


def test_requests_are_set_against_the_reference_alone() -> None:
    row = {"clients": 64, "requests": 10, "tokens": 320, "requests_per_second": 45.0, "median_latency": 1.2}
    told = report({"dry_run": True, "parts": [part("requests", engine=[row], reference={"requests_per_second": 1.5})]})
    assert "| stablelm | 64 | 45 | 1.2 | 32.0 | 1.5 | 30 |" in told
    assert told.startswith("DRY RUN")


def test_what_was_not_done_is_named_with_its_reason_and_keeps_its_figures() -> None:
    ended = part("steps", "ended", decode=[DECODE]) | {"reason": "not done after 300 s", "log": ["the last words"]}
    left = part("tuning", "left out") | {"reason": "takes about 150 s, and 20 s were left"}
    told = report({"dry_run": False, "parts": [ended, left]})
    assert "| stablelm | on | 64 | 680 | 4.00 | 3.90 | 15 | 6 | - | - |" in told
    assert "steps: ended (not done after 300 s)\n    the last words" in told
    assert "tuning: left out (takes about 150 s, and 20 s were left)" in told


def test_a_failed_part_and_an_engine_that_is_not_the_reference_are_not_well() -> None:
    assert is_well(part("parity", holds={"tokens": True, "routing": True}))
    assert not is_well(part("parity", holds={"tokens": True, "routing": False}))
    assert is_well(part("tuning", "left out"))
    assert not is_well(part("steps", "failed"))
    assert not is_well(part("steps", "ended"))


def test_no_rows_are_no_table() -> None:
    assert table([]) == ""
    assert table([{"a": "1", "b": "2"}]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


class Options:
    dry_run = True
    write_config = None


def run(name: str, work: Path, *, seconds: float = 1.0, budget: float = 60.0, **fields: Any) -> dict[str, Any]:
    asked = Part(name=name, seconds=seconds, dtype="float32", **fields)
    return outcome(asked, Options(), work, budget=Budget(budget), tiny=True)  # type: ignore[arg-type]


def test_parts_that_cannot_run_say_why(tmp_path: Path) -> None:
    assert run("tuning", tmp_path, shape="stablelm", needs_gpu=True)["status"] == "needs a GPU"
    assert run("steps", tmp_path, shape="stablelm")["reason"] == "its checkpoint was not made"
    assert run("ceilings", tmp_path, seconds=300.0)["status"] == "left out"


def test_a_part_that_hangs_is_ended_and_one_that_fails_leaves_its_last_words(tmp_path: Path) -> None:
    assert run("ceilings", tmp_path, seconds=0.01) == {
        "status": "ended",
        "reason": "not done after 0 s",
        "seconds": pytest.approx(0, abs=60),
        "figures": {},
        "log": [],
    }
    failed = run("checkpoint", tmp_path, shape="unknown", seconds=300, budget=400)
    assert failed["status"] == "failed"
    assert failed["log"][-1] == "KeyError: 'unknown'"


def test_a_checkpoint_is_made_once(tmp_path: Path) -> None:
    made, found = (checkpoint(tmp_path / "phi", device="cpu", tiny=True) for _ in range(2))
    assert made["made"]
    assert not found["made"]
    assert made["moe_layers"] == 2
    assert json.loads((tmp_path / "phi" / "config.json").read_text())["text_config"]["model_type"] == "phi"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phi"]
