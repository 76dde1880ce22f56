"""The real process: python -m medmoe.server on a real port, stopped by a real signal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest


@pytest.mark.timeout(60)
def test_the_process_serves_and_leaves_cleanly(checkpoint: Path, vqa_body: dict[str, Any]) -> None:
    environment = os.environ | {"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake", "MEDMOE_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "medmoe.server"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        address, ready = "", False
        while not (address and ready):
            line = json.loads(process.stderr.readline())
            ready = ready or line["message"] == "ready"
            if "running on" in line["message"]:
                address = next(word for word in line["message"].split() if word.startswith("http"))
        answer = httpx.post(f"{address}/v1/vqa", json=vqa_body)
        assert answer.status_code == 200, answer.text
        refused = httpx.post(
            f"{address}/v1/vqa", content=b"x" * 17 * 2**20, headers={"content-type": "application/json"}
        )
        assert refused.status_code == 413
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 0
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
