"""Check a running container stack for .ci/containers; standard library only: python3 container_checks.py WHAT.

Each prints what it saw, and ends with an exception or a status other than 0 when that is not what it should be.
"""

import json
import os
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SERVICE, PROMETHEUS, ORTHANC = (os.environ[name] for name in ("MEDMOE_URL", "PROMETHEUS_URL", "ORTHANC_URL"))
ROOT = Path(__file__).parents[1]
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
CT = ROOT / "server" / "openapi" / "examples" / "phantom.dcm"
MODALITIES = ("CT", "MRI", "X-ray", "pathology", None)
MAY_BE_EMPTY = ("medmoe_routing_drift",)
"""Names in queries that find nothing with the bundled checkpoint."""
LOAD = 40
INSIDE = 32
"""Requests during the stop: as many as a busy machine answers within MEDMOE_DRAIN_SECONDS."""
PATIENCE = int(os.environ.get("PATIENCE", "1"))


def drawn_image(shade: int) -> str:
    """Return a 64-pixel PNG in base64, a gradient that begins at `shade`."""
    rows = b"".join(b"\0" + bytes((shade + x * 2 + y) % 256 for x in range(64)) for y in range(64))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b64encode(png).decode()


def fetch(url: str, body: object = None, *, key: str = "") -> tuple[int, bytes]:
    """Return status and content, also for a status from 400 on."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data=data, headers=headers), timeout=120 * PATIENCE
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def query(expression: str) -> list[dict[str, object]]:
    """Return the result of a Prometheus query."""
    status, text = fetch(f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    assert status == 200, (expression, text)
    found: list[dict[str, object]] = json.loads(text)["data"]["result"]
    return found


def until(what: str, seconds: float, holds: Callable[[], object]) -> None:
    """Wait until `holds` returns something true. Raises TimeoutError."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds * PATIENCE:
            raise TimeoutError(f"not within {seconds * PATIENCE} s: {what}")
        time.sleep(1)
    print(f"{what}: after {time.monotonic() - began:.0f} s")


def vqa(number: int) -> int:
    body = {
        "image": drawn_image(number * 7 % 256),
        "question": "What modality is used to take this image?",
        "max_tokens": 8,
    }
    modality = MODALITIES[number % len(MODALITIES)]
    return fetch(f"{SERVICE}/v1/vqa", body | ({"modality": modality} if modality else {}))[0]


def ask() -> None:
    question = {
        "image": drawn_image(30),
        "question": "Which part of the body does this image belong to?",
        "modality": "CT",
    }
    status, text = fetch(f"{SERVICE}/v1/vqa", question)
    assert status == 200, text
    answer = json.loads(text)
    print("vqa:", {name: answer[name] for name in ("answer", "confidence", "timings")})
    status, text = fetch(f"{SERVICE}/v1/classify", {"image": drawn_image(30), "labels": ["CT", "MRI", "X-ray"]})
    assert status == 200, text
    print("classify:", json.loads(text)["label"], json.loads(text)["probabilities"])
    status, text = fetch(f"{SERVICE}/v1/router/stats")
    assert status == 200, text
    stats = json.loads(text)
    assert stats["requests"] >= 2, stats
    assert "CT" in stats["by_modality"], stats
    print("router:", stats["requests"], "requests,", {layer["layer"]: layer["tokens"] for layer in stats["overall"]})


def pacs() -> None:
    """Check that a CT of the PACS is answered about, and that the PACS has one report then, also after a retry."""
    with urllib.request.urlopen(f"{ORTHANC}/instances", data=CT.read_bytes(), timeout=60) as added:
        uids = json.loads(fetch(f"{ORTHANC}/instances/{json.load(added)['ID']}/simplified-tags")[1])
    names = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
    question = {
        "image": {"source": "pacs"} | {name: uids[tag] for name, tag in names.items()},
        "question": "Which part of the body does this image belong to?",
        "store": "pacs",
    }
    for _ in range(2):
        status, text = fetch(f"{SERVICE}/v1/vqa", question)
        assert status == 200, text
    status, text = fetch(f"{ORTHANC}/dicom-web/studies/{uids['StudyInstanceUID']}/instances?Modality=SR")
    assert status == 200, text
    print("reports in the PACS:", len(json.loads(text)))
    assert len(json.loads(text)) == 1


def bill(image: str) -> None:
    """Check that the bill of materials of `image` lists Debian's packages and ours, and is the same twice."""
    program = (ROOT / "docker" / "image_sbom.py").read_bytes()
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--read-only"]
    command += ["--entrypoint", "python3", image, "-", image]
    first, second = (subprocess.run(command, input=program, check=True, capture_output=True).stdout for _ in range(2))
    purls = [component["purl"] for component in json.loads(first)["components"] if "purl" in component]
    counts = {kind: sum(purl.startswith(f"pkg:{kind}/") for purl in purls) for kind in ("deb", "pypi", "generic")}
    print("bill of materials:", counts)
    assert first == second
    assert any(purl.startswith("pkg:deb/debian/libnuma1@") for purl in purls)
    assert any(purl.startswith("pkg:pypi/medmoe@") for purl in purls)


def load() -> None:
    """Send requests twice, more than a minute apart: panels look back a minute, and a rate needs two scrapes."""
    for _ in range(2):
        began = time.monotonic()
        with ThreadPoolExecutor(4) as callers:
            statuses = list(callers.map(vqa, range(LOAD)))
        assert set(statuses) == {200}, statuses
        print(f"{LOAD} questions, 4 at once: {time.monotonic() - began:.1f} s")
        time.sleep(15)


def targets() -> dict[str, str]:
    """Return each job's health as the running Prometheus has seen it, not from data of an earlier one."""
    found = json.loads(fetch(f"{PROMETHEUS}/api/v1/targets")[1])["data"]["activeTargets"]
    return {target["labels"]["job"]: target["health"] for target in found}


def series() -> None:
    print(targets())
    assert set(targets().values()) == {"up"}
    names = json.loads(fetch(f"{PROMETHEUS}/api/v1/label/__name__/values")[1])["data"]
    ours, engines = ([name for name in names if name.startswith(start)] for start in ("medmoe_", "vllm:"))
    print(len(ours), "names medmoe_*,", len(engines), "names vllm:*")
    assert ours
    assert engines
    rules = json.loads(fetch(f"{PROMETHEUS}/api/v1/rules")[1])["data"]["groups"]
    broken = [
        (rule["name"], rule["lastError"]) for group in rules for rule in group["rules"] if rule["health"] == "err"
    ]
    print(sum(len(group["rules"]) for group in rules), "rules;", "broken:", broken)
    assert not broken


def panels() -> None:
    empty, asked = [], 0
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                asked += 1
                expression = target["expr"].replace("$__rate_interval", "1m").replace('="$model"', '=~".+"')
                if not query(expression):
                    empty.append(f"{file.stem}: {panel['title']}: {target['expr']}")
    print(f"{asked} queries, {len(empty)} of them empty", *empty, sep="\n  ")
    unexpected = [line for line in empty if not any(name in line for name in MAY_BE_EMPTY)]
    assert not unexpected, unexpected


def restarted() -> None:
    until("not ready", 30, lambda: fetch(f"{SERVICE}/health/ready")[0] == 503)
    assert fetch(f"{SERVICE}/health/live")[0] == 200
    until("ready again", 300, lambda: fetch(f"{SERVICE}/health/ready")[0] == 200)
    assert vqa(1) == 200


def firing(alert: str) -> None:
    until(f"{alert} fires", 240, lambda: query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))


def resolved(alert: str) -> None:
    until(f"{alert} is resolved", 120, lambda: not query(f'ALERTS{{alertname="{alert}"}}'))


def drain(*stop: str) -> None:
    """Check that requests sent before the stop get an answer or a 503, and that no connection breaks."""
    with ThreadPoolExecutor(INSIDE) as callers:
        asked = [callers.submit(vqa, number) for number in range(INSIDE)]
        # Long enough to be inside, and too short for all of them.
        time.sleep(0.3)
        before = sum(one.done() for one in asked)
        began = time.monotonic()
        subprocess.run(stop, check=True)
        took = time.monotonic() - began
        statuses = [one.result() for one in asked]
    print(f"stopped in {took:.1f} s; {before} of {INSIDE} were answered before; statuses {sorted(statuses)}")
    assert set(statuses) <= {200, 503}, statuses
    assert statuses.count(200) > before, "nobody was inside"


def keys(file: str) -> None:
    key = Path(file).read_text()
    assert fetch(f"{SERVICE}/metrics")[0] == fetch(f"{SERVICE}/v1/router/stats")[0] == 401
    assert fetch(f"{SERVICE}/metrics", key=key)[0] == 200
    until("Prometheus shows its key", 60, lambda: targets()["medmoe"] == "up")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    checks = {
        check.__name__: check
        for check in (ask, bill, pacs, load, series, panels, restarted, firing, resolved, drain, keys)
    }
    checks[what](*arguments)
