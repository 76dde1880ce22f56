"""The bill of materials of an image, made of a listing of dpkg-query and of folders with Python packages."""

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deployment.conftest import DOCKER
from tests.unit.deployment.test_supply_chain import TOOL, VEX, needs_tool

_SPEC = importlib.util.spec_from_file_location("image_sbom", DOCKER / "image_sbom.py")
assert _SPEC is not None
assert _SPEC.loader is not None
PROGRAM = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(PROGRAM)
RELEASE = {"ID": "debian", "VERSION_ID": "12"}
LISTING = """\
installed bash 5.2.15-2+b7 amd64 bash 5.2.15-2
installed libc6 2.36-9+deb12u10 amd64 glibc 2.36-9+deb12u10
installed libcap2 1:2.66-4+deb12u2+b2 amd64 libcap2 1:2.66-4+deb12u2
installed libstdc++6 12.2.0-14+deb12u1 amd64 gcc-12 12.2.0-14+deb12u1
installed tzdata 2025b-0+deb12u2 all tzdata 2025b-0+deb12u2
config-files wget 1.21.3-1+b2 amd64 wget 1.21.3-1
"""
DEBIAN = {
    "bash": "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2",
    "libc6": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
    "libcap2": "pkg:deb/debian/libcap2@1:2.66-4%2Bdeb12u2%2Bb2"
    "?arch=amd64&distro=debian-12&upstream=libcap2%401:2.66-4%2Bdeb12u2",
    "libstdc++6": "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=gcc-12",
    "tzdata": "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u2?arch=all&distro=debian-12",
}


@pytest.fixture
def bill(tmp_path: Path) -> dict[str, Any]:
    """Return the bill of an image with LISTING and, in `tmp_path`, the VEX's packages and three others."""
    texts = [f"Name: {one['name']}\nVersion: {one['version']}\n" for one in VEX["components"]]
    texts.append("Name: Typing_Extensions\nVersion: 4.16.0\nLicense-Expression: PSF-2.0\n\nA text.\nVersion: 1\n")
    texts.append("Name: torch\nVersion: 2.13.0+cpu\nLicense: BSD-3-Clause\n")
    texts.append("Name: wheel\nVersion: 0.45.1\n")
    for number, text in enumerate(texts):
        directory = tmp_path / "opt" / "site-packages" / f"{number}.dist-info"
        directory.mkdir(parents=True)
        (directory / "METADATA").write_text(text)
    inside = tmp_path / "opt" / "site-packages" / "setuptools" / "_vendor" / "wheel.dist-info"
    inside.mkdir(parents=True)
    (inside / "METADATA").write_text(texts[-1])
    components = [*PROGRAM.debian_packages(LISTING, RELEASE), *PROGRAM.python_packages(tmp_path)]
    made: dict[str, Any] = PROGRAM.bill("medmoe-serve:cpu", RELEASE, components)
    return made


def test_debian_packages_name_the_source_that_advisories_are_about(bill: dict[str, Any]) -> None:
    found = {one["name"]: one["purl"] for one in bill["components"] if one.get("purl", "").startswith("pkg:deb/")}
    assert found == DEBIAN


def test_python_packages_are_listed_once_each_with_their_licences(bill: dict[str, Any]) -> None:
    found = {one["bom-ref"]: one for one in bill["components"]}
    assert len(found) == len(bill["components"])
    assert found["pkg:pypi/typing-extensions@4.16.0"]["licenses"] == [{"expression": "PSF-2.0"}]
    assert found["pkg:pypi/torch@2.13.0%2Bcpu"]["licenses"] == [{"license": {"name": "BSD-3-Clause"}}]
    assert "licenses" not in found["pkg:pypi/wheel@0.45.1"]


def test_the_vex_is_about_components_of_the_bill(bill: dict[str, Any]) -> None:
    assert {one["bom-ref"] for one in VEX["components"]} <= {one["bom-ref"] for one in bill["components"]}


@needs_tool
def test_the_bill_of_an_image_is_valid(bill: dict[str, Any]) -> None:
    check = (
        "import json, sys; from cyclonedx.schema import SchemaVersion;"
        "from cyclonedx.validation.json import JsonStrictValidator; from packageurl import PackageURL;"
        "text = sys.stdin.read();"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(text));"
        "purls = [one['purl'] for one in json.loads(text)['components'] if 'purl' in one];"
        "print(all(PackageURL.from_string(purl).to_string() == purl for purl in purls))"
    )
    found = subprocess.run(
        [TOOL / "python", "-c", check], input=json.dumps(bill), check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == ["None", "True"]
