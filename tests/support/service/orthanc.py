"""Start an Orthanc with its DICOMweb plugin on a free port of this machine, in a directory of its own."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
USER, PASSWORD = "medmoe", "not-a-secret"
_START_SECONDS = 300.0

needs_orthanc = pytest.mark.skipif(
    not (Path(ORTHANC).exists() and PLUGIN.exists()),
    reason="NO ORTHANC HERE: apt-get install orthanc orthanc-dicomweb; DICOMweb was not tested against a real PACS",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Orthanc:
    port: int
    http: httpx.Client
    """Of Orthanc's own API."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def add(self, file: bytes) -> None:
        self.http.post("/instances", content=file).raise_for_status()

    def query(self, target: str, **filters: str) -> list[dict[str, Any]]:
        """Return the answer to a QIDO-RS query."""
        found: list[dict[str, Any]] = self.http.get(f"/dicom-web{target}", params=filters).raise_for_status().json()
        return found


@contextmanager
def orthanc(directory: Path) -> Iterator[Orthanc]:
    """Run an empty Orthanc that asks for USER and PASSWORD."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    settings = {
        "StorageDirectory": str(directory / "db"),
        "IndexDirectory": str(directory / "db"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (directory / "orthanc.json").write_text(json.dumps(settings))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(directory / "orthanc.json")], stdout=log, stderr=log, cwd=directory)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(USER, PASSWORD), timeout=30) as http:
            _wait(http, process, directory / "log")
            yield Orthanc(port=port, http=http)
    finally:
        process.terminate()
        process.wait(30)


def _wait(http: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            http.get("/system").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())
