"""Run the blocks of a batch through Ray Data: one actor for each engine, restarted when it dies."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Ray reads both when it is imported: it would report its use over the Internet, and warn of its own actors' arguments.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray.data
import ray.exceptions

from medmoe.client.cluster.plan import Block
from medmoe.client.cluster.worker import BlockReport, Worker, WorkerConfig
from medmoe.client.errors import ClientError

_LOCAL = "local"
"""Ray's word for a cluster of this machine alone, which ends with this process."""
_STDOUT, _STDERR = 1, 2
_STARTS = 3
_QUIET = ("ray", "ray.data")


@dataclass(frozen=True, kw_only=True, slots=True)
class Actors:
    """Say how many actors run, and what each reserves on its node."""

    count: int
    cpus: float
    gpus: float


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address` or RAY_ADDRESS, or run Ray on this machine. Raises ClientError.

    Until the end, standard output is standard error: the caller's result stands alone on it.
    """
    with _stdout_to_stderr():
        _connect(address)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Replace the file descriptor: Ray's C++ code writes notes about lost actors to it."""
    sys.stdout.flush()
    output = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(output, _STDOUT)
        os.close(output)


def _connect(address: str | None) -> None:
    where = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    settings = {name: value for name, value in os.environ.items() if name.startswith("MEDMOE_")}
    # Ray shows the environment of its jobs; keys are arguments of the actors.
    settings.pop("MEDMOE_API_KEY", None)
    for attempt in range(_STARTS):
        try:
            ray.init(
                where,
                runtime_env={"env_vars": settings},
                include_dashboard=False if where == _LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
            break
        # Ray gives a local node 30 seconds, too few on a busy machine, and raises nothing narrower.
        except Exception as error:
            ray.shutdown()
            if where != _LOCAL or attempt == _STARTS - 1:
                raise ClientError(f"no Ray at {where}: {' '.join(str(error).split())}") from error
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def resources() -> tuple[int, int, int]:
    """Return the numbers of nodes with CPUs, of CPUs and of GPUs in the cluster."""
    total = ray.cluster_resources()
    nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
    return nodes, int(total.get("CPU", 0)), int(total.get("GPU", 0))


def answer_blocks(blocks: Sequence[Block], config: WorkerConfig, actors: Actors) -> Iterator[BlockReport]:
    """Yield a report for each block, in the order in which they are finished. Raises the error of an actor."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    rows = [{"block": block} for block in blocks]
    reports = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_kwargs={"config": config},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors.count, max_tasks_in_flight_per_actor=2),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
    )
    try:
        for row in reports.iter_rows():
            yield BlockReport(rows=row["rows"], errors=row["errors"], seconds=row["seconds"])
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    except ray.exceptions.RayError as error:
        raise ClientError(f"Ray gave up: {str(error).splitlines()[0]}") from error


class _Actor:
    """Give Ray Data a worker."""

    def __init__(self, *, config: WorkerConfig) -> None:
        self._worker = Worker(config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        reports = [self._worker.answer(block) for block in batch["block"]]
        return {name: [getattr(report, name) for report in reports] for name in ("rows", "errors", "seconds")}


def _cause(error: BaseException) -> ClientError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ClientError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause if isinstance(cause, ClientError) else ClientError(f"an actor failed: {str(error).splitlines()[-1]}")
