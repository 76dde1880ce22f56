"""Test that directories of killed services go, and those of living ones stay."""

import os
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


async def test_what_a_killed_service_leaves_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", "")
    with subprocess.Popen(
        [sys.executable, "-c", _SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        left = service.stdout.readline().strip()
        own = EngineDirectory()
        assert os.path.isdir(left)
        service.kill()
    own.remove()
    other = EngineDirectory()
    assert not os.path.exists(left)
    assert len(os.listdir(tmp_path)) == 1
    other.remove()
    assert os.listdir(tmp_path) == []
