"""The programs in server/client/examples, run as a person would against the real server over a real socket."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.conftest import image_bytes
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for label, first in (("CT", 0), ("MRI", 100)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(7):
            path = tmp_path / "images" / label / f"{number}.png"
            path.write_bytes(image_bytes(shade=first + 9 * number))
    (tmp_path / "images" / "CT" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def risk_coverage(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medmoe.client.examples.risk_coverage", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def table(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_risk_coverage_writes_two_tables_and_a_figure(server: ServerProcess, images: Path, tmp_path: Path) -> None:
    done = risk_coverage(images, tmp_path / "out", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stderr
    assert "notes.txt" in done.stderr
    rows = table(tmp_path / "out" / "answers.csv")
    assert {row["image"] for row in rows} == {f"{label}/{n}.png" for label in ("CT", "MRI") for n in range(7)}
    assert all(row["image"].startswith(f"{row['truth']}/") for row in rows)
    assert all(row["abstained"] == "False" for row in rows)
    sure = [float(row["probability"]) for row in rows]
    assert sure == sorted(sure, reverse=True)
    right = sum(row["label"] == row["truth"] for row in rows)
    assert "14 of 15 images, probabilities the model's own" in done.stdout
    assert f"accuracy {100 * right / 14:.1f} %" in done.stdout
    with Image.open(tmp_path / "out" / "risk_coverage.png") as figure:
        assert figure.size == (1350, 600)
    shares: dict[tuple[str, str], float] = {}
    for row in table(tmp_path / "out" / "experts.csv"):
        key = (row["truth"], row["layer"])
        shares[key] = shares.get(key, 0) + float(row["share"])
    assert {truth for truth, _ in shares} == {"CT", "MRI"}
    assert all(share == pytest.approx(1) for share in shares.values())


def test_risk_coverage_says_what_it_lacks(server: ServerProcess, images: Path, tmp_path: Path) -> None:
    done = risk_coverage(images / "CT", tmp_path / "out", "--url", server.url)
    assert done.returncode == 2
    assert "two labels" in done.stderr
    assert not (tmp_path / "out").exists()


def test_risk_coverage_without_matplotlib_says_what_to_install(images: Path, tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['matplotlib'] = None; "
        "runpy.run_module('medmoe.client.examples.risk_coverage', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(images), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "error: this example draws with matplotlib: pip install matplotlib\n"
