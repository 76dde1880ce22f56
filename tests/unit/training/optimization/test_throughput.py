"""What a stage gets through."""

import time

import pytest
import torch

from medmoe.training.optimization.callbacks.throughput import Throughput

PACKED = {
    "input_ids": torch.zeros(2, 6, dtype=torch.long),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]),
    "labels": torch.tensor([[-100, -100, 5, 2, 6, 2], [-100, 7, 2, -100, -100, -100]]),
    # Two questions on the first image, one on the second; -1 is padding.
    "segments": torch.tensor([[0, 1, 1, 1, 2, 2], [0, 1, 1, -1, -1, -1]]),
}
SINGLE = {name: column for name, column in PACKED.items() if name != "segments"}


@pytest.mark.parametrize(("batch", "samples"), [(PACKED, 3), (SINGLE, 2)])
def test_questions_and_tokens_are_counted_and_padding_is_not(batch: dict[str, torch.Tensor], samples: int) -> None:
    throughput = Throughput(torch.device("cpu"))
    throughput.count([batch, batch])
    time.sleep(0.01)
    lap = throughput.lap(lambda counts: counts)
    ratio = lap["tokens_per_second"] / 18
    assert lap["samples_per_second"] == pytest.approx(2 * samples * ratio)
    assert lap["answer_tokens_per_second"] == pytest.approx(12 * ratio)


def test_figures_are_of_all_processes_and_laps_add_up() -> None:
    throughput = Throughput(torch.device("cpu"))
    for _ in range(2):
        throughput.count([SINGLE])
        time.sleep(0.01)
        throughput.lap(lambda counts: 3 * counts)
    assert throughput.total()["tokens_per_second"] * throughput.seconds() == pytest.approx(54)
    assert throughput.lap(lambda counts: counts)["tokens_per_second"] == 0


def test_memory_is_counted_in_bytes() -> None:
    assert 20e6 < Throughput(torch.device("cpu")).peak_memory() < 1e12
