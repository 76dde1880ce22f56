"""What the engine's processes find in their environment, and how many of them there are."""

import os
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.engine.deployment import cpu_tuning
from medmoe.server.engine.deployment.cpu_tuning import in_one_process, tune
from medmoe.server.settings import Settings

OURS = ("GLIBC_TUNABLES", "LD_PRELOAD", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
OURS += ("VLLM_CPU_OMP_THREADS_BIND",)
INTEL = "/somewhere/libiomp5.so"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy that nobody else sees: vLLM's build for CPUs, Intel's OpenMP, nothing that an operator has set."""
    copied = {name: value for name, value in os.environ.items() if name not in OURS}
    monkeypatch.setattr(os, "environ", copied | {"VLLM_TARGET_DEVICE": "cpu"})
    monkeypatch.setattr(cpu_tuning, "_intel_openmp", lambda: INTEL)
    return os.environ  # type: ignore[return-value]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says how many cores this process may use."""
    return lambda count: monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


def test_on_two_cores_the_engine_is_one_process_with_a_thread_on_each(environment: dict[str, str], cores: Any) -> None:
    cores(2)
    tune(Settings())
    assert in_one_process(Settings())
    assert environment["OMP_NUM_THREADS"] == "2"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment


def test_an_engine_that_is_built_anew_is_tuned_as_the_first(environment: dict[str, str], cores: Any) -> None:
    """What the first has set must not be taken for an operator's wish."""
    cores(2)
    tune(Settings())
    first = dict(environment)
    tune(Settings())
    assert dict(environment) == first
    assert in_one_process(Settings())


@pytest.mark.parametrize(("count", "settings"), [(16, {}), (2, {"tensor_parallel_size": 2})])
def test_many_cores_and_several_ranks_are_vllms_business(cores: Any, count: int, settings: dict[str, Any]) -> None:
    cores(count)
    assert not in_one_process(Settings(**settings))


def test_ranks_are_bound_to_cores_of_their_own(environment: dict[str, str], cores: Any) -> None:
    cores(2)
    tune(Settings(tensor_parallel_size=2))
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"


def test_an_operator_who_binds_threads_gets_the_process_that_vllm_binds(
    environment: dict[str, str], cores: Any
) -> None:
    cores(2)
    environment["VLLM_CPU_OMP_THREADS_BIND"] = "1"
    tune(Settings())
    assert not in_one_process(Settings())
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "1"


@pytest.mark.parametrize(
    ("found", "before", "preloaded", "spin"),
    [
        (INTEL, None, INTEL, "KMP_BLOCKTIME"),
        (INTEL, "libtcmalloc.so", f"libtcmalloc.so:{INTEL}", "KMP_BLOCKTIME"),
        (INTEL, "/other/libgomp.so.1", "/other/libgomp.so.1", "GOMP_SPINCOUNT"),
        (INTEL, "/other/libiomp5.so", "/other/libiomp5.so", "KMP_BLOCKTIME"),
        (None, None, None, "GOMP_SPINCOUNT"),
    ],
)
def test_one_openmp_is_preloaded_and_spins_briefly(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    found: str | None,
    before: str | None,
    preloaded: str | None,
    spin: str,
) -> None:
    monkeypatch.setattr(cpu_tuning, "_intel_openmp", lambda: found)
    if before is not None:
        environment["LD_PRELOAD"] = before
    tune(Settings())
    assert environment.get("LD_PRELOAD") == preloaded
    assert {"KMP_BLOCKTIME", "GOMP_SPINCOUNT"} & environment.keys() == {spin}


def test_what_an_operator_has_set_stays(environment: dict[str, str]) -> None:
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "KMP_BLOCKTIME": "7", "OMP_NUM_THREADS": "1"}
    environment.update(theirs)
    tune(Settings())
    assert theirs.items() <= environment.items()


def test_a_gpu_is_left_alone(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_tuning, "built_for_cpu", lambda: False)
    before = dict(environment)
    tune(Settings())
    assert dict(environment) == before
    assert not in_one_process(Settings())


@pytest.mark.parametrize(
    ("folder", "usable"), [("lib", True), ("a folder", False), ("a:b", False)], ids=["plain", "space", "colon"]
)
def test_a_library_that_the_loader_cannot_name_is_not_preloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str, usable: bool
) -> None:
    monkeypatch.undo()
    library = tmp_path / folder / "libiomp5.so"
    library.parent.mkdir()
    library.touch()

    class File:
        name = library.name

        def locate(self) -> Path:
            return library

    class Installed:
        files = (File(),)

    monkeypatch.setattr(cpu_tuning, "distribution", lambda _: Installed)
    assert cpu_tuning._intel_openmp() == (str(library) if usable else None)
