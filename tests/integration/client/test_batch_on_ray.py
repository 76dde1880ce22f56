"""`medmoe batch --ray` on this machine: two actors with engines of their own, one of which is killed."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.conftest import Medmoe, image_bytes
from tests.support.service.server_process import ServerProcess

pytest.importorskip("ray", reason="Ray is not installed: make checks")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: make checks")

pytestmark = pytest.mark.timeout(600)

IMAGES = 40


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of one node with two CPUs, for all tests: its start takes seconds."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=2, include_dashboard=False)
        # Ray gives a node 30 seconds and raises nothing narrower.
        except Exception as error:
            cluster.shutdown()
            if "timed out during startup" in str(error):
                pytest.skip("this machine is too busy: Ray's node did not start in 30 seconds")
            raise
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(IMAGES - 2):
        (tmp_path / f"{number:02}.png").write_bytes(image_bytes(shade=number))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    names = [path.name for path in sorted(tmp_path.glob("*.png"))] + ["missing.png"]
    source = tmp_path / "in.csv"
    source.write_text("id,image,question\n" + "".join(f"{name[:-4]},{name},What?\n" for name in names))
    return source


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("part-*")) for row in parquet.read_table(path).to_pylist()]


def kill_an_actor() -> list[psutil.Process]:
    """Kill -9 an actor that has a block and starts an engine for it. Return the processes that it had started."""
    while True:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "MapWorker" in " ".join(process.cmdline()) and (children := process.children(recursive=True)):
                    process.kill()
                    return children
        time.sleep(0.02)


def test_a_killed_actor_loses_no_row_and_doubles_none(
    medmoe: Medmoe, cluster: str, checkpoint: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDMOE_ENGINE", "fake")
    monkeypatch.setenv("MEDMOE_MODEL", str(checkpoint))
    output = source.parent / "out"
    ask = ("batch", source, output, "--ray", "--address", cluster, "--json", "--rows-per-file", 5)
    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill_an_actor)
        done = medmoe(*ask, "--actors", 2)
        orphans = killing.result()
    assert done.returncode == 1
    assert "2 of 40 lines have errors" in done.stderr
    assert "40 of 40 answered, 2 with errors" in done.stderr
    counted = {"lines": IMAGES, "asked": IMAGES, "errors": 2, "lost": 0, "doubled": 0}
    assert json.loads(done.stdout.splitlines()[-1]) == counted
    found = rows(output)
    expected = sorted([*(f"{number:02}" for number in range(IMAGES - 2)), "missing", "torn"])
    assert sorted(row["id"] for row in found) == expected
    codes = {row["id"]: row["error_code"] for row in found if row["error_code"]}
    assert codes == {"torn": "unreadable_image", "missing": "invalid_input"}
    assert all((row["answer"] is None) == (row["error_code"] is not None) for row in found)
    _, alive = psutil.wait_procs(orphans, 120)
    assert not alive

    # Nothing is left to ask, so no actor starts.
    again = medmoe(*ask)
    assert json.loads(again.stdout) == counted | {"asked": 0}
    assert rows(output) == found


def test_what_ray_says_on_standard_output_goes_to_standard_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medmoe.client.cluster import pipeline

    def says(*arguments: object, **options: object) -> None:
        os.write(1, b"a note of Ray's\n")

    monkeypatch.setattr(pipeline.ray, "init", says)
    monkeypatch.setattr(pipeline.ray, "shutdown", says)
    with pipeline.connected(None):
        pass
    os.write(1, b"the result\n")
    said = capfd.readouterr()
    assert said.out == "the result\n"
    assert said.err.count("a note of Ray's\n") == 2


def test_actors_ask_running_replicas_for_what_is_missing(
    medmoe: Medmoe, cluster: str, server: ServerProcess, source: Path
) -> None:
    output = source.parent / "out"
    ask = ("batch", source, output, "--ray", "--address", cluster, "--json", "--rows-per-file", 10)
    ask = (*ask, "--url", server.url, "--url", f"{server.url}/v1")
    medmoe(*ask)
    whole = rows(output)
    lost = sorted(output.glob("part-*"))[1]
    lost.unlink()
    for name in ("torn", "missing"):
        (source.parent / f"{name}.png").write_bytes(image_bytes(shade=77))
    done = medmoe(*ask, "--retry-errors")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"lines": IMAGES, "asked": 12, "errors": 0, "lost": 0, "doubled": 0}
    assert lost.exists()
    mended = {row["key"]: row for row in rows(output)}
    assert len(mended) == len(whole)
    assert all(mended[row["key"]] == row for row in whole if row["error_code"] is None)
