"""`medmoe`: one program, its errors one line, its sub-commands imported only when called."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.command_line import main
from tests.tiny import save_tiny_checkpoint
from tests.upstream import Variant, write_upstream

TOWER = ["--vision-heads", "2", "--vision-activation", "quick_gelu", "--vision-eps", "1e-5"]


Medmoe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def medmoe(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Medmoe:
    """Run the program in this process, where torch is imported already."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["medmoe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess([], int(ended.value.code or 0), *capfd.readouterr())

    return run


def test_help_lists_every_command(medmoe: Medmoe) -> None:
    found = medmoe("--help")
    assert found.returncode == 0
    assert all(name in found.stdout for name in ("convert", "inspect", "serve", "train", "eval"))


def test_the_program_and_its_sub_commands_are_installed() -> None:
    (script,) = [point for point in entry_points(group="console_scripts") if point.name == "medmoe"]
    assert script.value == "medmoe.model.command_line:main"
    assert {point.name for point in entry_points(group="medmoe.commands")} >= {"serve", "train", "eval"}


def test_a_checkpoint_is_converted_and_described(medmoe: Medmoe, tmp_path: Path) -> None:
    write_upstream(tmp_path / "source", Variant())
    done = medmoe("convert", tmp_path / "source", tmp_path / "target", *TOWER, "--expert-domain", "CT",
                  "--expert-domain", "MRI", "--expert-domain", "X-ray")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "family med_moe" in done.stdout
    assert "ignored auto_map: remote code is never run" in done.stdout
    assert load_checkpoint(tmp_path / "target").config.expert_domains == ("CT", "MRI", "X-ray")
    found = medmoe("inspect", tmp_path / "target", "--json")
    assert json.loads(found.stdout)["moe"]["experts"] == 3
    assert "layers: 0, 2" in medmoe("inspect", tmp_path / "target").stdout


def test_an_error_is_one_line_on_standard_error(medmoe: Medmoe, tmp_path: Path) -> None:
    for arguments in (["inspect", tmp_path], ["convert", tmp_path / "none", tmp_path / "target"]):
        found = medmoe(*arguments)
        assert found.returncode == 1
        assert found.stdout == ""
        assert found.stderr.startswith("error: ")
        assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["convert"], ["nonsense"], ["inspect", "x", "--nonsense"], ["serve", "nonsense"]]
)
def test_wrong_usage_has_a_status_of_its_own(medmoe: Medmoe, arguments: list[str]) -> None:
    assert medmoe(*arguments).returncode == 2


@pytest.mark.parametrize("command", ["serve", "train", "eval"])
def test_the_other_rooms_explain_themselves(medmoe: Medmoe, command: str) -> None:
    found = medmoe(command, "--help")
    assert found.returncode == 0
    assert f"medmoe {command}" in found.stdout


def test_inspecting_imports_neither_torch_nor_a_server(tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    script = (
        "import sys; from medmoe.model.command_line import app; "
        f"app(['inspect', {str(directory)!r}], standalone_mode=False); "
        "print([name for name in ('torch', 'vllm', 'fastapi', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
