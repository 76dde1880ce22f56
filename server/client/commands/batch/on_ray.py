"""Run `medmoe batch --ray`: the same tasks on a Ray cluster, into a folder of Parquet files."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medmoe.client.batch.runner import Load
from medmoe.client.batch.task import Task
from medmoe.client.commands.batch.outcome import asked_again, print_counts, require_no_errors, resumable
from medmoe.client.commands.connection import api_key, usage_errors
from medmoe.client.commands.terminal import note_progress
from medmoe.client.errors import ClientError, InvalidInput
from medmoe.client.transport.address import KEY_VARIABLE, Address

if TYPE_CHECKING:
    from medmoe.client.cluster.worker import BlockReport

_AUDIT = "MEDMOE_AUDIT_DIR"
_RANKS = "MEDMOE_TENSOR_PARALLEL_SIZE"
_CLIENT_CPUS = 0.25
"""CPUs of an actor that only asks running replicas."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOnRay:
    """Options of `medmoe batch --ray`; None is the default of the command line."""

    address: str | None
    actors: int | None
    cpus_per_actor: float | None
    gpus_per_actor: float | None
    rows_per_file: int | None
    urls: tuple[str, ...]
    token_file: Path | None
    load: Load
    concurrency: int
    timeout: float
    retry_errors: bool


def batch_on_ray(tasks: Sequence[Task], output: Path, options: BatchOnRay, *, json_: bool) -> None:
    """Answer the tasks that have no row in `output`. Raises ClientError if a row holds an error or is missing."""
    # Imported here because only the extra `ray` brings them.
    try:
        from medmoe.client.cluster.partitions import locked, read_rows
        from medmoe.client.cluster.pipeline import Actors, answer_blocks, connected, resources
        from medmoe.client.cluster.plan import block_rows, plan
        from medmoe.client.cluster.worker import WorkerConfig
    except ModuleNotFoundError as error:
        raise ClientError(f"--ray needs the package {error.name}: pip install '.[ray]' in the repository") from error

    _check_connection(options)
    # Actors have working directories of their own.
    tasks = [replace(task, path=task.path.resolve()) for task in tasks]
    output = output.resolve()
    keys = {task.key for task in tasks}
    with locked(output):
        rows, _ = read_rows(output)
        config = WorkerConfig(
            output=output,
            load=options.load,
            urls=options.urls,
            api_key=(api_key(options.token_file) or os.environ.get(KEY_VARIABLE) or "") if options.urls else "",
            concurrency=options.concurrency,
            timeout=options.timeout,
        )
        images = {key: row.image_sha256 for key, row in rows.items() if row.image_sha256 is not None}
        again = asked_again(tasks, images, load=options.load, output=output)
        if options.retry_errors:
            again |= {key for key in keys & rows.keys() if rows[key].failed}
        open_ = len(keys - rows.keys() | again)
        if open_:
            with connected(options.address):
                count, cpus, gpus = _reserved(options, *resources())
                actors = Actors(count=count, cpus=cpus, gpus=gpus)
                size = options.rows_per_file or block_rows(len(tasks), actors=actors.count)
                blocks = plan(tasks, rows, rows_per_block=size, again=again)
                _follow(answer_blocks(blocks, config, actors), tasks=open_, actors=actors.count)
        rows, doubled = read_rows(output)
    lost = len(keys - rows.keys())
    errors = sum(rows[key].failed for key in keys & rows.keys())
    counts = {"lines": len(tasks), "asked": open_, "errors": errors, "lost": lost, "doubled": doubled}
    print_counts(counts, json_=json_)
    if lost or doubled:
        raise ClientError(f"{lost} lines have no row in {output}, and {doubled} rows are there twice; report it")
    require_no_errors(counts, output)


def _follow(reports: "Iterable[BlockReport]", *, tasks: int, actors: int) -> None:
    """Show the progress until all of `tasks` are answered. Raises ClientError, typer.Exit."""
    from medmoe.client.cluster.progress import Progress

    progress = Progress(tasks=tasks)
    show = note_progress()
    with resumable(lambda: f"{progress.answered} of {tasks} are answered"):
        for report in reports:
            progress.add(report, now=time.monotonic())
            show(f"{progress}, {actors} actors", progress.answered == tasks)


def _check_connection(options: BatchOnRay) -> None:
    with usage_errors():
        for url in options.urls:
            Address.of(url, api_key="")
    if not options.urls and os.environ.get(_AUDIT):
        raise InvalidInput(f"actors keep no audit trail: name running services with --url, or unset {_AUDIT}")


def _reserved(options: BatchOnRay, nodes: int, cpus: int, gpus: int) -> tuple[int, float, float]:
    """Return the number of actors, and the CPUs and GPUs of each, on a cluster of so many nodes, CPUs and GPUs."""
    own_engine = not options.urls
    gpus_each = options.gpus_per_actor
    if gpus_each is None:
        gpus_each = float(os.environ.get(_RANKS) or 1) if own_engine and gpus else 0.0
    count = options.actors or max(int(gpus / gpus_each) if gpus_each else nodes, 1)
    cpus_each = options.cpus_per_actor
    if cpus_each is None:
        # On a GPU node the CPUs decode images; without one they are the engine's.
        cpus_each = max(cpus // count, 1) if own_engine and not gpus_each else 1.0 if own_engine else _CLIENT_CPUS
    return count, cpus_each, gpus_each
