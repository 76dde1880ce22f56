"""Measure what a batch costs the requests beside it, and what is left to it: a job and no job in turn, in one server.

    python -m tests.benchmarks.batch_latency [--engine fake] [--repeats 5] [--json FILE]

In each round the same requests are asked with a job in progress and without one, in an order that is drawn: `steady`
one after another, and `sparse` one each `--gap` seconds, when the job runs at full width again. Every image is new, in
the job and beside it. A ratio is the median of the rounds' ratios of their medians, with a 95 % bootstrap interval.
Lines a second are also measured while nobody asks. With the defaults it takes under five minutes on a quiet machine.
"""

import argparse
import asyncio
import base64
import io
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.benchmarks.support.bootstrap import median_interval, ratio_interval, shown
from tests.benchmarks.support.load import ANSWERED, Client, percentile, print_table
from tests.benchmarks.support.machine import describe, machine
from tests.support.service.server_process import ServerProcess, server_process

_START = 600.0
_PATIENCE = 60.0
_SIDE = 64
_ROUTE = "/v1/vqa"
PATTERNS = ("steady", "sparse")


class Images:
    """Bodies of requests, none of which has an image that another has."""

    def __init__(self, *, max_tokens: int) -> None:
        self._random = np.random.default_rng(0)
        self._max_tokens = max_tokens

    def body(self) -> dict[str, Any]:
        file = io.BytesIO()
        pixels = self._random.integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
        image = base64.b64encode(file.getvalue()).decode()
        return {"image": image, "question": "What is shown in this image?", "max_tokens": self._max_tokens}


class Job:
    """A batch of more lines than are answered while it is watched."""

    def __init__(self, http: httpx.AsyncClient, images: Images, *, lines: int) -> None:
        self._http = http
        self._lines = "".join(
            json.dumps({"custom_id": str(number), "method": "POST", "url": _ROUTE, "body": images.body()}) + "\n"
            for number in range(lines)
        )
        self._path = ""

    async def begin(self) -> None:
        """Wait until lines are answered. Raises TimeoutError."""
        sent = await self._http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", self._lines)})
        body = {"input_file_id": sent.json()["id"], "endpoint": _ROUTE, "completion_window": "24h"}
        created = await self._http.post("/v1/batches", json=body)
        self._path = f"/v1/batches/{created.raise_for_status().json()['id']}"
        async with asyncio.timeout(_PATIENCE):
            while not await self.answered():
                await asyncio.sleep(0.05)

    async def answered(self) -> int:
        """Return the number of answered lines. Raises RuntimeError when no line is left."""
        found = (await self._http.get(self._path)).raise_for_status().json()
        if found["status"] not in ("validating", "in_progress"):
            raise RuntimeError(f"the job is {found['status']}; it needs more --lines")
        counts = found["request_counts"]
        return int(counts["completed"] + counts["failed"])

    async def end(self) -> None:
        (await self._http.post(f"{self._path}/cancel")).raise_for_status()
        async with asyncio.timeout(_PATIENCE):
            while (await self._http.get(self._path)).json()["status"] != "cancelled":
                await asyncio.sleep(0.05)


async def asked(client: Client, bodies: list[bytes], *, gap: float) -> list[float]:
    """Return the seconds of each answer, asked one after the other. Raises RuntimeError for a refusal."""
    seconds = []
    for body in bodies:
        await asyncio.sleep(gap)
        outcome = await client.ask(body)
        if outcome.what != ANSWERED:
            raise RuntimeError(outcome.what)
        seconds.append(outcome.seconds)
    return seconds


async def measured(options: argparse.Namespace, client: Client, images: Images, job: Job | None) -> dict[str, Any]:
    """Return the seconds of the requests by pattern and, with a job, its lines a second while they were asked."""
    found: dict[str, Any] = {"job": job is not None, "seconds": {}, "lines": {}}
    if job is not None:
        await job.begin()
        begun, before = time.monotonic(), await job.answered()
        await asyncio.sleep(options.alone)
        found["lines"]["alone"] = (await job.answered() - before) / (time.monotonic() - begun)
    for pattern, count, gap in (("steady", options.steady, 0.0), ("sparse", options.sparse, options.gap)):
        bodies = [json.dumps(images.body()).encode() for _ in range(count)]
        begun, before = time.monotonic(), await job.answered() if job is not None else 0
        found["seconds"][pattern] = await asked(client, bodies, gap=gap)
        if job is not None:
            found["lines"][pattern] = (await job.answered() - before) / (time.monotonic() - begun)
    if job is not None:
        await job.end()
    return found


async def run(options: argparse.Namespace, server: ServerProcess) -> list[dict[str, Any]]:
    """Return each measurement with its `round`; the first round, in which caches fill, is left out."""
    client, images = Client(server), Images(max_tokens=options.max_tokens)
    chance = random.Random(0)
    rows = []
    async with httpx.AsyncClient(base_url=server.url, timeout=_PATIENCE) as http:
        for number in range(options.repeats + 1):
            print(f"round {number}", file=sys.stderr, flush=True)
            for with_job in chance.sample((True, False), 2):
                job = Job(http, images, lines=options.lines) if with_job else None
                row = await measured(options, client, images, job)
                if number:
                    rows.append({"round": number, **row})
    return rows


def table(rows: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield a row for each pattern without and with a job, and one for the job alone."""
    by_state = {state: [row for row in rows if row["job"] is state] for state in (False, True)}
    for pattern, state in itertools.product(PATTERNS, (False, True)):
        medians = {one: [percentile(row["seconds"][pattern], 0.5) for row in found] for one, found in by_state.items()}
        every = [second for row in by_state[state] for second in row["seconds"][pattern]]
        yield {
            "requests": pattern,
            "job": "in progress" if state else "none",
            "p50 ms": shown(median_interval(medians[state]), scale=1e3),
            "x none": shown(ratio_interval(medians[True], medians[False])) if state else "-",
            "p95 ms": f"{1e3 * percentile(every, 0.95):.3g}",
            "lines/s": shown(median_interval([row["lines"][pattern] for row in by_state[True]])) if state else "-",
        }
    alone = shown(median_interval([row["lines"]["alone"] for row in by_state[True]]))
    yield {"requests": "none", "job": "in progress", "p50 ms": "-", "x none": "-", "p95 ms": "-", "lines/s": alone}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm", help="fake: to try the benchmark itself")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; one before them does not count")
    parser.add_argument("--steady", type=int, default=40, help="requests one after another, in a turn")
    parser.add_argument("--sparse", type=int, default=4, help="requests after --gap seconds each, in a turn")
    parser.add_argument("--gap", type=float, default=2.7, help="seconds; after two of them a job runs at full width")
    parser.add_argument("--alone", type=float, default=3.0, help="seconds in which nobody asks beside the job")
    parser.add_argument("--lines", type=int, default=1500, help="of a job; more than are answered in its turn")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write every measurement there too")
    options = parser.parse_args()
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MEDMOE_ENGINE": options.engine, "MEDMOE_BATCH_DIR": folder}
        with server_process(settings=settings) as server:
            server.wait_ready(_START)
            rows = asyncio.run(run(options, server))
            server.stop()
    print(describe(here) + "\n")
    print_table(list(table(rows)))
    if options.json:
        options.json.write_text(json.dumps({"machine": here, "command": sys.argv[1:], "rows": rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
