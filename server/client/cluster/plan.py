"""Divide the tasks of a batch into blocks, each of which becomes one partition of the output."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from medmoe.client.batch.task import Task

_MOST_ROWS = 512
_LEAST_ROWS = 16
_BLOCKS_PER_ACTOR = 8
"""Least number of blocks for each actor of a large batch, so that actors finish together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Describe an existing row of the output."""

    partition: str
    failed: bool
    image_sha256: str | None = None
    """Digest of the image that was answered; None for an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Tasks that one actor answers, and the partition that gets their rows."""

    partition: str
    """Name of the partition's file, the same in every run over the same input."""
    tasks: tuple[Task, ...]
    again: bool = False
    """Whether the partition has rows of these tasks, which are replaced."""


def block_rows(tasks: int, *, actors: int) -> int:
    """Return the number of rows in a block, where the user does not say."""
    return min(_MOST_ROWS, max(_LEAST_ROWS, tasks // (_BLOCKS_PER_ACTOR * actors)))


def plan(
    tasks: Sequence[Task], rows: Mapping[str, Row], *, rows_per_block: int, again: Collection[str] = ()
) -> list[Block]:
    """Return the blocks of the tasks that have no row in the output, `rows` by key.

    Tasks whose keys are in `again` are asked again, for the partition that has the row.
    """
    asked: dict[str, list[Task]] = {}
    for number, start in enumerate(range(0, len(tasks), rows_per_block)):
        whole = {task.key: task for task in tasks[start : start + rows_per_block]}
        # Named by all of its tasks: a run that follows an interrupted one writes the same files.
        if new := [task for key, task in whole.items() if key not in rows]:
            asked[f"part-{number:06}-{_digest(whole)}.parquet"] = new
    repeated = set()
    for task in tasks:
        if task.key in again:
            partition = rows[task.key].partition
            repeated.add(partition)
            # One block for each partition: two actors would overwrite each other's rows.
            asked.setdefault(partition, []).append(task)
    return [Block(partition=name, tasks=tuple(found), again=name in repeated) for name, found in asked.items()]


def _digest(keys: Iterable[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
