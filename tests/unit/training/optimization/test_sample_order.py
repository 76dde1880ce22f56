"""The course of a stage."""

from collections import Counter
from pathlib import Path

import pytest

from medmoe.training.data.batches.packing import Pack
from medmoe.training.data.sample import Sample
from medmoe.training.optimization.sample_order import EpochDataset


def packs(number: int) -> list[Pack]:
    return [
        (Sample(id=str(index), dataset="d", image=Path("/i.png"), split="train", question="q?", answer="a"),)
        for index in range(number)
    ]


def ids(course: EpochDataset) -> list[str]:
    return [course[index][0].id for index in range(len(course))]


def test_every_pack_comes_once_in_every_epoch_each_time_in_another_order() -> None:
    seen = ids(EpochDataset(packs(10), epochs=3, batch_size=5, seed=1))
    epochs = [seen[start : start + 10] for start in (0, 10, 20)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(map(str, range(10)))] * 3
    assert len(set(map(tuple, epochs))) == 3


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 5), (0.3, 1), (2.5, 7)])
def test_batches_are_full_and_run_across_the_ends_of_epochs(epochs: float, steps: int) -> None:
    course = EpochDataset(packs(10), epochs=epochs, batch_size=4, seed=1)
    assert (course.steps, len(course)) == (steps, steps * 4)
    assert max(Counter(ids(course)).values()) - min(Counter(ids(course)).get(str(i), 0) for i in range(10)) <= 1


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert len(EpochDataset(packs(3), epochs=1, batch_size=8, seed=0)) == 8


def test_the_order_is_the_seeds() -> None:
    first, again, other = (ids(EpochDataset(packs(50), epochs=2, batch_size=8, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other
