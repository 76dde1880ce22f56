"""Test that directories of killed services go, and those of living ones stay."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.engine.engine_directory import EngineDirectory

_SERVICE = """
import asyncio, os, sys
from medmoe.server.engine.engine_directory import EngineDirectory

async def main():
    directory = EngineDirectory()
    print(os.environ["VLLM_RPC_BASE_PATH"], flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


async def make() -> EngineDirectory:
    return EngineDirectory()


def test_what_a_killed_service_leaves_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", "")
    with asyncio.Runner() as runner:
        with subprocess.Popen(
            [sys.executable, "-c", _SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as service:
            assert service.stdout is not None
            left = Path(service.stdout.readline().strip())
            own = runner.run(make())
            assert left.is_dir()
            service.kill()
        own.remove()
        other = runner.run(make())
        assert not left.exists()
        assert len(list(tmp_path.iterdir())) == 1
        other.remove()
        assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[str] = []

    class Swept(tempfile.TemporaryDirectory[str]):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self.name)
            if len(made) == 1:
                Path(self.name).rmdir()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Swept)
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", "")
    with asyncio.Runner() as runner:
        directory = runner.run(make())
        assert len(made) == 2
        assert Path(os.environ["VLLM_RPC_BASE_PATH"]).is_dir()
        directory.remove()
    assert not list(tmp_path.iterdir())
