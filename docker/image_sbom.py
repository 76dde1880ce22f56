"""Write the CycloneDX bill of materials of the image that runs this program: its Debian and Python packages.

    docker run --rm --interactive --network none --entrypoint python3 IMAGE - IMAGE <docker/image_sbom.py >bill.cdx.json

It needs the standard library alone. The same image gives the same bytes.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
DPKG_FORMAT = "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n"
_NOT_IN_THE_IMAGE = ("/proc", "/sys", "/dev", "/tmp")  # noqa: S108 - a folder that is left out


def debian_packages(listing: str, release: dict[str, str]) -> Iterator[Component]:
    """Return a component for each installed package of `dpkg-query --show` in DPKG_FORMAT.

    `upstream` names the source package, which Debian's advisories are about: Syft's qualifier, which Grype reads.
    """
    for line in listing.splitlines():
        status, name, version, architecture, source, source_version = line.split(" ")
        if status != "installed":
            continue
        upstream = "" if source == name else source
        if source_version != version:
            upstream = f"{source}@{source_version}"
        qualifiers = {"arch": architecture, "distro": f"{release['ID']}-{release['VERSION_ID']}", "upstream": upstream}
        yield _component(f"deb/{release['ID']}", name, version, qualifiers)


def python_packages(root: Path) -> Iterator[Component]:
    """Return a component for each distribution with metadata under `root`, those inside other packages included."""
    for directory, names, _ in os.walk(root):
        names[:] = [name for name in names if f"{directory.rstrip('/')}/{name}" not in _NOT_IN_THE_IMAGE]
        for name in names:
            metadata = Path(directory, name, "METADATA")
            if name.endswith(".dist-info") and metadata.is_file():
                yield _distribution(HeaderParser().parsestr(metadata.read_text(errors="replace")))


def bill(image: str, release: dict[str, str], components: Iterable[Component]) -> dict[str, Any]:
    """Return the bill of materials of `image`, each component once and in the order of their references."""
    system = {
        "type": "operating-system",
        "bom-ref": "operating-system",
        "name": release["ID"],
        "version": release["VERSION_ID"],
    }
    once = {component["bom-ref"]: component for component in components}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": image}},
        "components": [system, *(once[reference] for reference in sorted(once))],
        # Libraries that lie inside wheels, as CUDA's and OpenSSL's do, have no metadata that could be listed.
        "compositions": [{"aggregate": "incomplete", "assemblies": ["image"]}],
    }


def _distribution(metadata: Message) -> Component:
    name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()
    component = _component("pypi", name, metadata["Version"], {})
    if expression := metadata["License-Expression"]:
        component["licenses"] = [{"expression": expression}]
    elif (text := (metadata["License"] or "").strip()) and "\n" not in text:
        component["licenses"] = [{"license": {"name": text}}]
    return component


def _component(kind: str, name: str, version: str, qualifiers: dict[str, str]) -> Component:
    given = "&".join(f"{key}={quote(value, safe=':')}" for key, value in qualifiers.items() if value)
    purl = f"pkg:{kind}/{quote(name, safe='')}@{quote(version, safe=':')}" + (f"?{given}" if given else "")
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _interpreter() -> Iterator[Component]:
    """Return a component for a Python that was built from source, as that of the image `python` is."""
    executable = os.path.realpath(sys.executable)
    if _dpkg_query("--search", executable).returncode:
        yield _component("generic", "python", platform.python_version(), {})


def _dpkg_query(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["/usr/bin/dpkg-query", *arguments], capture_output=True, check=False, text=True)  # noqa: S603


def main() -> None:
    image = sys.argv[1]
    release = platform.freedesktop_os_release()
    listing = _dpkg_query("--show", f"--showformat={DPKG_FORMAT}")
    listing.check_returncode()
    components = [*debian_packages(listing.stdout, release), *python_packages(Path("/")), *_interpreter()]
    json.dump(bill(image, release, components), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
