"""Find what the experiment trains on: entries of the new tasks, and of the old ones that are replayed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medmoe.training.config import DataConfig, Split
from medmoe.training.data.detection import require_splits
from medmoe.training.data.errors import DataError
from medmoe.training.data.mixture import read_mixture
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.planning.narrowing import own_entries


def new_entries(root: Path, datasets: Sequence[str], *, limit: int | None) -> tuple[DataConfig, ...]:
    """Return entries that read at most `limit` samples of each kind from the train splits.

    Raises DataError for a dataset that cannot be read or has no such samples.
    """
    return tuple(replace(entry, limit=limit) for name in datasets for entry in own_entries(name, root=root))


def replay_entries(
    root: Path, datasets: Sequence[str], *, new: Sequence[DataConfig], share: float
) -> tuple[DataConfig, ...]:
    """Return entries of the old tasks with `share` as many samples as `new` has, divided evenly among them.

    Raises DataError as `new_entries`.
    """
    entries = [entry for name in datasets for entry in own_entries(name, root=root)]
    samples = len(read_mixture(new, root=root, domains=(), seed=0).samples)
    limit = max(1, round(share * samples / len(entries)))
    return tuple(replace(entry, limit=limit) for entry in entries)


def evaluated(root: Path, datasets: Sequence[str], *, split: Split, limit: int | None) -> EvaluationData:
    """Return at most `limit` samples of each dataset.

    Raises DataError for a dataset that cannot be read, does not state its splits, has no such split, or has no sample
    there that can be scored.
    """
    for name in datasets:
        require_splits(root / name)
    read = EvaluationData.read(root, datasets, split=split, limit=limit)
    if empty := [file.dataset for file in read.files if not file.samples]:
        raise DataError(f"{empty[0]} has no {split} split; choose another --split")
    for name in dict.fromkeys(sample.dataset for sample in read.samples):
        own = [sample for sample in read.samples if sample.dataset == name]
        if not any(sample.kind == "classification" or sample.answer_type for sample in own):
            raise DataError(f"{name} cannot be scored: its questions have no answer_type, open or closed")
    return read


def check_disjoint(old: EvaluationData, new: EvaluationData) -> None:
    """Raise DataError when old and new tasks share a dataset or the id of a sample."""
    if shared := _names(old) & _names(new):
        raise DataError(f"{min(shared)} is among the old tasks and the new ones; leave it out of one")
    ids = [sample.id for sample in (*old.samples, *new.samples)]
    if len(set(ids)) < len(ids):
        repeated = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise DataError(f"two evaluated samples have the id {repeated}")


def _names(read: EvaluationData) -> set[str]:
    return {sample.dataset for sample in read.samples}
