"""Test that directories of killed services go, and those of living ones stay."""

import asyncio
import subprocess
import sys
from pathlib import Path

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
