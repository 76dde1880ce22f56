"""`medmoe`: one program, its errors one line, its sub-commands imported only when called."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.cli import COMMANDS, main
from medmoe.model.signing.signature import generate_key
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.upstream import Variant, upstream_tensors, write_upstream

TOWER = ["--vision-layers", "3", "--vision-heads", "2", "--vision-activation", "quick_gelu", "--vision-eps", "1e-5"]


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


def test_a_misspelt_command_names_the_nearest(medmoe: Medmoe) -> None:
    assert "Did you mean 'classify'?" in medmoe("clasify").stderr
    found = medmoe("ask", "--ulr", "x")
    assert found.stderr.startswith("error: no such option: --ulr; did you mean ")
    assert "--url" in found.stderr.removeprefix("error: no such option: --ulr")
    assert found.stderr.endswith(" (see medmoe ask --help)\n")
    assert found.returncode == 2


@pytest.mark.parametrize("name", [*COMMANDS, "audit verify", "checkpoint load"])
def test_arguments_are_named_in_upper_case_as_the_help_speaks_of_them(medmoe: Medmoe, name: str) -> None:
    usage = medmoe(*name.split(), "--help").stdout.split("\n\n")[0]
    arguments = usage.removeprefix(f"Usage: medmoe {name}").replace("LABEL", "")
    assert arguments == arguments.upper()


def test_a_stray_argument_is_told_what_it_lacks(medmoe: Medmoe) -> None:
    stray = medmoe("ask", "a.png", "What", "is", "this?")
    assert "extra argument(s) (is this?); words with spaces need quotes" in stray.stderr
    assert stray.returncode == 2


def test_a_variable_keeps_its_letters_in_an_error(medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMOE_CA_FILE", "/none")
    assert medmoe("stats").stderr.startswith("error: MEDMOE_CA_FILE: not a PEM file")


def test_what_follows_two_hyphens_is_no_option(medmoe: Medmoe, tmp_path: Path) -> None:
    found = medmoe("ask", "--url", "no address", "--", "-x.png", "-What?")
    assert "address must begin with http://" in found.stderr
    group = medmoe("checkpoint", "load", "--url", "no address", "--", "-name")
    assert "address must begin with http://" in group.stderr


def test_a_character_that_the_terminal_has_not_is_escaped(
    medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    config = json.loads((directory / "config.json").read_text())
    config["expert_domains"] = ["R\u00f6ntgen", "\u03b1", *config["expert_domains"][2:]]
    (directory / "config.json").write_text(json.dumps(config))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    found = medmoe("inspect", directory)
    sys.stdout.flush()
    assert found.returncode == 0, found.stderr
    assert b"R\xf6ntgen, \\u03b1" in written.getvalue()


def test_the_version_is_printed(medmoe: Medmoe) -> None:
    assert medmoe("--version").stdout.startswith("medmoe ")


def test_the_program_and_its_sub_commands_are_installed() -> None:
    (script,) = [point for point in entry_points(group="console_scripts") if point.name == "medmoe"]
    assert script.value == "medmoe.model.cli:main"


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


def test_a_directory_without_a_checkpoint_is_said_to_be_one(medmoe: Medmoe, tmp_path: Path) -> None:
    assert f"{tmp_path} holds no checkpoint: config.json is missing" in medmoe("inspect", tmp_path).stderr
    assert f"{tmp_path / 'none'} does not exist" in medmoe("inspect", tmp_path / "none").stderr


def test_no_control_character_of_a_checkpoint_reaches_the_terminal(medmoe: Medmoe, tmp_path: Path) -> None:
    tensors = upstream_tensors(Variant())
    write_upstream(tmp_path / "source", Variant(), tensors=tensors | {"x\x1b[31m\u202e": torch.zeros(1)})
    found = medmoe("convert", tmp_path / "source", tmp_path / "target", *TOWER)
    assert "x\\x1b[31m\\u202e" in found.stderr
    write_upstream(tmp_path / "source", Variant(), tensors=tensors)
    (tmp_path / "source" / "\x1b[2J.bin").touch()
    domains = ["--expert-domain", "\x1b[1m", "--expert-domain", "b", "--expert-domain", "c"]
    done = medmoe("convert", tmp_path / "source", tmp_path / "target", *TOWER, *domains)
    described = medmoe("inspect", tmp_path / "target")
    assert (done.returncode, described.returncode) == (0, 0)
    for text in (found.stderr, done.stdout, described.stdout):
        assert all(line.isprintable() for line in text.splitlines())


def test_an_error_that_nobody_foresaw_is_one_line_too(
    medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("somewhere\ndeep")

    monkeypatch.setattr("medmoe.model.inspection.inspect.inspect_checkpoint", fail)
    found = medmoe("inspect", tmp_path)
    assert found.returncode == 1
    assert found.stderr.startswith("error: internal error, please report it")
    assert len(found.stderr.splitlines()) == 1
    monkeypatch.setenv("MEDMOE_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["medmoe", "inspect", str(tmp_path)])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize("package", ["torch", "medmoe.nothing"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("medmoe.model.inspection.inspect.inspect_checkpoint", missing)
    found = medmoe("inspect", tmp_path)
    assert found.returncode == 1
    extra = "error: medmoe inspect needs the package torch: install the extra train (`pip install '.[train]'`"
    ours = "error: internal error, please report it"
    assert found.stderr.startswith(extra if package == "torch" else ours)


def test_an_interrupted_command_ends_with_a_word(
    medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medmoe.model.inspection.inspect.inspect_checkpoint", interrupted)
    found = medmoe("inspect", tmp_path)
    assert (found.returncode, found.stderr) == (130, "error: interrupted\n")


def test_a_full_disk_is_no_internal_error(medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x"))

    monkeypatch.setattr("medmoe.model.inspection.inspect.inspect_checkpoint", full)
    assert medmoe("inspect", tmp_path).stderr == f"error: {tmp_path / 'x'}: No space left on device\n"


@pytest.mark.parametrize("name", ["x" * 300, "circle"])
@pytest.mark.parametrize(
    "command", [["sign", "--key", "key"], ["manifest", "--dataset", "slake", "--data"], ["render", "pngs"]]
)
def test_a_path_that_cannot_be_is_no_internal_error(
    medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    Path("pngs").mkdir()
    Path("pngs", "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    generate_key(Path("key"))
    found = medmoe(*command, name, "--url", "http://127.0.0.1:9") if "pngs" in command else medmoe(*command, name)
    assert found.returncode == 1
    assert name in found.stderr
    assert "internal error" not in found.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_that_is_killed_politely_removes_what_it_staged(
    medmoe: Medmoe, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path, number: int
) -> None:
    write_upstream(tmp_path / "source", Variant())
    # Under nohup SIGHUP is ignored, and a conversion leaves it so.
    of_the_run = signal.signal(number, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(number, of_the_run))

    def killed(*arguments: object) -> None:
        assert len(list(tmp_path.iterdir())) == 2
        os.kill(os.getpid(), number)

    monkeypatch.setattr("medmoe.model.conversion.converter._write_weights", killed)
    assert medmoe("convert", tmp_path / "source", tmp_path / "target", *TOWER).returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_checkpoint_that_does_not_fit_its_config_fails_inspection(medmoe: Medmoe, tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    assert "fits config: yes" in medmoe("inspect", directory).stdout
    tensors = {n: v for n, v in load_file(directory / "model.safetensors").items() if ".experts." not in n}
    save_file(tensors, directory / "model.safetensors")
    found = medmoe("inspect", directory)
    assert found.returncode == 1
    assert "fits config: no" in found.stdout


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


@pytest.mark.parametrize("name", ["", "checkpoint", "audit"])
def test_a_program_without_a_command_prints_its_help(medmoe: Medmoe, name: str) -> None:
    found = medmoe(*name.split())
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == medmoe(*name.split(), "--help").stdout


def test_options_stand_under_headings(medmoe: Medmoe) -> None:
    _, *sections = medmoe("ask", "--help").stdout.split("\n\n")
    heading = {line.split()[0]: section.split(":")[0] for section in sections for line in section.splitlines()}
    assert (heading["--stream"], heading["--window"], heading["--url"]) == ("Options", "Image", "Service")


def test_inspecting_imports_neither_torch_nor_a_server(tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    script = (
        "import sys; from pathlib import Path; from medmoe.model.commands.inspect import inspect; "
        f"inspect(Path({str(directory)!r})); "
        "print([name for name in ('torch', 'vllm', 'fastapi', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
