"""The search for a kernel's configuration, and the file that vLLM reads."""

import importlib.util
import json
from itertools import product
from pathlib import Path

import pytest

from tests.benchmarks.gpu.tuning import GRID, descend, neighbours
from tests.benchmarks.gpu.vllm import KEYS, Configuration, file_text

START: Configuration = {
    "BLOCK_SIZE_M": 16,
    "BLOCK_SIZE_N": 64,
    "BLOCK_SIZE_K": 128,
    "GROUP_SIZE_M": 1,
    "num_warps": 4,
    "num_stages": 4,
}


def separable(configuration: Configuration) -> float:
    """Each dimension has a best value, whatever the others are."""
    wanted = {"BLOCK_SIZE_M": 32, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 8, "num_warps": 8}
    return 1.0 + sum(abs(configuration[name] - value) / value for name, value in wanted.items())


def test_the_search_finds_what_trying_everything_finds() -> None:
    everything = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    best, cost = descend(START, separable, more=lambda: True)
    assert cost == min(map(separable, everything)) == 1.0
    assert separable(best) == cost


def test_nothing_is_tried_twice_and_what_does_not_work_is_never_taken() -> None:
    tried: list[Configuration] = []

    def cost(configuration: Configuration) -> float | None:
        assert configuration not in tried
        tried.append(configuration)
        return None if configuration["num_warps"] == 8 else separable(configuration)

    best, _ = descend(START, cost, more=lambda: True)
    assert best["num_warps"] == 4
    assert len(tried) < 2 * sum(map(len, GRID.values()))


def test_without_time_the_default_stays() -> None:
    assert descend(START, separable, more=lambda: False) == (START, separable(START))


def test_a_default_that_fails_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not work"):
        descend(START, lambda _: None, more=lambda: True)


def test_neighbours_differ_in_one_dimension() -> None:
    found = neighbours(START, "BLOCK_SIZE_N")
    assert [one["BLOCK_SIZE_N"] for one in found] == [32, 128, 256]
    assert all({**one, "BLOCK_SIZE_N": 64} == START for one in found)


def test_the_file_is_shaped_as_vllms_own() -> None:
    found = json.loads(file_text({64: {**START, "SPLIT_K": 1}, 1: START}, triton="3.6.0"))
    assert list(found) == ["triton_version", "1", "64"]
    vllm = importlib.util.find_spec("vllm")
    assert vllm is not None
    assert vllm.origin is not None
    folder = Path(vllm.origin).parent / "model_executor" / "layers" / "fused_moe" / "configs"
    theirs = json.loads((folder / "E=8,N=14336,device_name=NVIDIA_H200.json").read_text())
    theirs.pop("triton_version", None)
    assert set(found["64"]) == set(found["1"]) == set(theirs["64"]) == set(KEYS)
