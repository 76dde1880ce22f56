"""Two processes train what one trains, each with the whole model or with its shards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medmoe.model.checkpoint.io import load_checkpoint, model_tensors
from medmoe.training.pipeline import Run
from tests.support.images.colours import RUNTIME, colours_recipe, write_colours

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same recipe by one process, by two that accumulate three batches of two each, and by two with shards."""
    root = tmp_path_factory.mktemp("runs")
    data = write_colours(root / "data")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tests.support.images.colours", str(data), str(root / "two"), "--accumulate", "3"]
    command += ["--sharded", str(root / "sharded")]
    finished = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, timeout=550)
    assert finished.returncode == 0, finished.stderr.decode()[-4000:]
    Run(colours_recipe(), data=data, directory=root / "one", runtime=RUNTIME)()
    return {name: root / name for name in ("one", "two", "sharded")}


@pytest.mark.parametrize("several", ["two", "sharded"])
@pytest.mark.parametrize("stage", ["alignment", "instruction_tuning", "moe_tuning"])
def test_two_processes_have_the_losses_of_one(runs: dict[str, Path], stage: str, several: str) -> None:
    one, two = (json.loads((runs[name] / "report.json").read_text())[stage] for name in ("one", several))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert [row["step"] for row in one["losses"]] == [row["step"] for row in two["losses"]]
    for first, second in zip(one["losses"], two["losses"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)


@pytest.mark.parametrize("several", ["two", "sharded"])
@pytest.mark.parametrize("stage", ["2-instruction_tuning", "colours"])
def test_two_processes_end_with_the_weights_of_one(runs: dict[str, Path], stage: str, several: str) -> None:
    one, two = (model_tensors(load_checkpoint(runs[name] / stage)) for name in ("one", several))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("several", ["two", "sharded"])
def test_two_processes_write_what_one_writes(runs: dict[str, Path], several: str) -> None:
    one, two = ({str(path.relative_to(run)) for path in run.rglob("*.*")} for run in (runs["one"], runs[several]))
    assert {name for name in one if "tfevents" not in name} == {name for name in two if "tfevents" not in name}
    assert sum("tfevents" in name for name in two) == 3
    assert (runs["one"] / "recipe.json").read_text() == (runs[several] / "recipe.json").read_text()
