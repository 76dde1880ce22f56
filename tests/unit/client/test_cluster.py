"""A batch on a cluster without Ray: blocks, partitions, and an actor whose service dies."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from medmoe.client.batch.result_line import ERROR, KEY, RESULT, Line
from medmoe.client.batch.task import Task
from medmoe.client.cluster.local_service import LocalService, service_environment
from medmoe.client.cluster.plan import Row, block_rows, plan
from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Image
from tests.support.service.client_answer import ANSWER
from tests.support.service.scripted_service import Reply, scripted_service

pytest.importorskip("pyarrow", reason="pyarrow is not installed: make checks")

from medmoe.client.cluster.partitions import locked, read_rows, write_partition
from medmoe.client.cluster.progress import Progress
from medmoe.client.cluster.worker import BlockReport, Worker, WorkerConfig


def tasks(number: int) -> list[Task]:
    return [Task(path=Path(f"{one}.png"), image=f"{one}.png", question="What?") for one in range(number)]


def line(task: Task, *, error: bool = False) -> Line:
    told = {"type": "invalid_request_error", "code": "unreadable_image", "message": "No.", "param": None}
    head = {KEY: task.key, "id": None, "image": task.image, "question": task.question, "labels": None}
    return head | ({RESULT: None, ERROR: told} if error else {RESULT: ANSWER, ERROR: None})


def test_a_rerun_writes_what_is_missing_into_files_of_the_same_names() -> None:
    every = tasks(10)
    first = plan(every, {}, rows_per_block=4)
    assert [len(block.tasks) for block in first] == [4, 4, 2]
    done = {task.key: Row(partition=first[1].partition, failed=False) for task in first[1].tasks}
    assert plan(every, done, rows_per_block=4) == [first[0], first[2]]
    # Another division into blocks asks the same tasks.
    rest = [task for block in plan(every, done, rows_per_block=3) for task in block.tasks]
    assert rest == [*first[0].tasks, *first[2].tasks]


def test_rows_with_errors_are_asked_again_where_they_are() -> None:
    every = tasks(6)
    rows = {task.key: Row(partition=f"part-{number % 2}", failed=number > 2) for number, task in enumerate(every)}
    assert plan(every, rows, rows_per_block=4) == []
    failed = {key for key, row in rows.items() if row.failed}
    again = plan(every, rows, rows_per_block=4, again=failed)
    assert {block.partition: block.tasks for block in again} == {"part-1": (every[3], every[5]), "part-0": (every[4],)}
    assert all(block.again for block in again)
    # A partition is never given to two actors at once.
    (first,) = plan(every, {}, rows_per_block=6)
    there = {task.key: Row(partition=first.partition, failed=True) for task in every[:4]}
    (both,) = plan(every, there, rows_per_block=6, again=there.keys())
    assert (both.partition, both.again) == (first.partition, True)
    assert both.tasks == (*every[4:], *every[:4])


def test_every_actor_gets_several_blocks_and_files_are_not_too_many() -> None:
    assert block_rows(2000, actors=2) == 125
    assert block_rows(10, actors=2) == 16
    assert block_rows(5_000_000, actors=8) == 512


def test_a_partition_is_replaced_whole_and_its_other_rows_stay(tmp_path: Path) -> None:
    one, two = tasks(2)
    write_partition(tmp_path / "part-0.parquet", [line(one), line(two, error=True)])
    assert read_rows(tmp_path)[0][two.key] == Row(partition="part-0.parquet", failed=True)
    assert read_rows(tmp_path)[0][one.key].image_sha256 == ANSWER["provenance"]["image_sha256"]
    write_partition(tmp_path / "part-0.parquet", [line(two)])
    rows, doubled = read_rows(tmp_path)
    assert not any(row.failed for row in rows.values())
    assert (rows.keys(), doubled) == ({one.key, two.key}, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["part-0.parquet"]
    write_partition(tmp_path / "part-1.parquet", [line(two)])
    assert read_rows(tmp_path)[1] == 1


def test_a_partition_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    (one,) = tasks(1)
    partition = tmp_path / "part-0.parquet"
    write_partition(partition, [line(one, error=True)])
    partition.chmod(0o600)
    write_partition(partition, [line(one)])
    assert stat.S_IMODE(partition.stat().st_mode) == 0o600


def test_a_partition_has_the_columns_of_the_csv_file_and_the_whole_answer(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: make checks")
    odd = Task(path=Path(), image="\udcff.png", question="What?")
    unsent = line(odd, error=True) | {KEY: "q1", "labels": ["\ud800", "CT"]}
    write_partition(tmp_path / "part-0.parquet", [line(odd), unsent])
    row, refused = parquet.read_table(tmp_path / "part-0.parquet").to_pylist()
    assert refused["labels"] == [r"\ud800", "CT"]
    assert row["image"] == r"\udcff.png"
    assert row["answer"] == ANSWER["answer"]
    assert json.loads(row["result"]) == ANSWER


@pytest.mark.parametrize("content", [b"", b"PAR1 no PAR1"])
def test_what_a_batch_has_not_written_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(content)
    with pytest.raises(InvalidInput, match="no Parquet file"):
        read_rows(tmp_path)


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(InvalidInput, match="another run"), locked(tmp_path / "out"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is a file"), locked(tmp_path / "file"):
        pass


@dataclass
class MortalService:
    """Stand for the service of an actor; it is dead when `lives` says so."""

    url: str
    lives: list[bool] = field(default_factory=lambda: [True])

    @property
    def alive(self) -> bool:
        return self.lives[0]

    def stop(self) -> None:
        self.lives[0] = False


def load(task: Task) -> Image:
    if task.image == "1.png":
        raise InvalidInput("1.png cannot be read: No such file or directory")
    return Image(task.image.encode())


def test_an_image_that_ends_the_service_is_a_row_and_no_other_is_lost(tmp_path: Path) -> None:
    """The service dies of one image, each time; the actor finds out which, and answers all others."""
    started: list[MortalService] = []

    def reply(path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if b"4.png" in body or not started[-1].alive:
            started[-1].stop()
            return Reply(drop=True)
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(ANSWER).encode())

    with scripted_service(reply) as service:

        def start() -> LocalService:
            started.append(MortalService(service.url))
            return cast(LocalService, started[-1])

        config = WorkerConfig(output=tmp_path, load=load, concurrency=2, timeout=2)
        worker = Worker(config, start=start)
        (block,) = plan(tasks(6), {}, rows_per_block=16)
        report = worker.answer(block)
    assert (report.rows, report.errors) == (6, 2)
    assert len(started) == 4
    rows, doubled = read_rows(tmp_path)
    assert (rows.keys(), doubled) == ({task.key for task in block.tasks}, 0)
    assert {task.image for task in block.tasks if rows[task.key].failed} == {"1.png", "4.png"}
    # An actor that takes over a written block asks nothing.
    assert Worker(config, start=start).answer(block) == BlockReport(rows=6, errors=0, seconds=0.0)
    assert len(started) == 4


def test_only_the_actor_reaches_its_service() -> None:
    given = {
        "MEDMOE_HOST": "0.0.0.0",
        "MEDMOE_API_KEYS": "keys",
        "MEDMOE_MODEL": "m",
        "MEDMOE_TLS_KEY": "k",
        "MEDMOE_REQUESTS_PER_MINUTE": "60",
        "PATH": "p",
    }
    assert service_environment(given) == {
        "MEDMOE_HOST": "127.0.0.1", "MEDMOE_PORT": "0", "MEDMOE_MODEL": "m", "PATH": "p",
    }  # fmt: skip


def test_an_actors_service_leaves_the_files_of_other_services_alone() -> None:
    given = {"MEDMOE_BATCH_DIR": "batches", "MEDMOE_DICOMWEB_SOURCES": "sources.toml", "MEDMOE_CHECKPOINTS_DIR": "c"}
    assert service_environment(given) == {"MEDMOE_HOST": "127.0.0.1", "MEDMOE_PORT": "0"}


def test_a_service_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "forever.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "medmoe.client.cluster.run_module", "forever"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        # The kernel does this for a parent that is killed.
        process.stdin.close()
        assert process.wait(120) == -signal.SIGTERM


def test_throughput_leaves_out_the_start_of_the_engine() -> None:
    progress = Progress(tasks=1000)
    assert str(progress) == "0 of 1,000 answered, 0 with errors, 0.0 a second"
    progress.add(BlockReport(rows=100, errors=1, seconds=10.0), now=500.0)
    progress.add(BlockReport(rows=100, errors=0, seconds=10.0), now=510.0)
    assert str(progress) == "200 of 1,000 answered, 1 with errors, 10.0 a second, 0:01:20 left"


def test_the_extra_is_named_where_ray_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    code = "import sys; sys.modules['ray'] = None; from medmoe.model.cli import main; main()"
    command = [sys.executable, "-c", code, "batch", tmp_path, tmp_path / "out", "--question", "?", "--ray"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: --ray needs the package ray: pip install '.[ray]' in the repository\n"
    assert not (tmp_path / "out").exists()
