"""How a run is carried out: what may differ from machine to machine, and what may not."""

import pytest
import torch

from medmoe.model.errors import ConfigError
from medmoe.training.optimization.runtime import RuntimeConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(("processes", "accumulate", "expected"), [(1, 1, 24), (2, 1, 12), (2, 3, 4), (8, 3, 1)])
def test_a_stages_batch_is_divided_among_processes_and_accumulated_batches(
    processes: int, accumulate: int, expected: int
) -> None:
    assert RuntimeConfig(accumulate=accumulate).device_batch(24, processes=processes) == expected


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigError, match="24 cannot be divided among 5 processes"):
        RuntimeConfig().device_batch(24, processes=5)


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"log_every": 0}, {"checkpoint_every": -10}, {"workers": -1}])
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RuntimeConfig(**wrong)  # type: ignore[arg-type]


def test_checkpoints_fall_on_logged_steps() -> None:
    with pytest.raises(ConfigError, match="25 is no multiple of 10"):
        RuntimeConfig(checkpoint_every=25)


@pytest.mark.parametrize(
    ("precision", "native", "expected"),
    [
        ("auto", False, torch.float32),
        ("auto", True, torch.bfloat16),
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
    ],
)
def test_a_processor_computes_in_bfloat16_where_it_can_unless_told_otherwise(
    precision: str, native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert RuntimeConfig(precision=precision).dtype(CPU) is expected  # type: ignore[arg-type]


def test_batches_are_prepared_beside_a_gpu_and_not_beside_a_cpu() -> None:
    assert RuntimeConfig().loader_workers(CPU, processes=1) == 0
    assert RuntimeConfig().loader_workers(torch.device("cuda"), processes=1) > 0
    assert RuntimeConfig(workers=3).loader_workers(CPU, processes=2) == 3
