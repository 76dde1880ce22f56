"""Measure the cost of more labels in `/v1/classify`: 2, 10, 50 and 100 of them for the same image, in one server.

    python -m tests.benchmarks.label_cost [--engine fake] [--repeats 15] [--counts 2,10,50,100] [--json FILE]

For each number of labels, each repeat shows an image that nobody has seen and asks about it twice: `cold`, and the
same again, `warm`. Asked are the checkpoint's own question, which names the labels and grows with them, and a fixed
one. `steps` are the engine requests that one classification takes. The last rows are ratios of the most labels to the
fewest, medians over the repeats with 95 % bootstrap intervals; the repeats turn the order of the numbers.
"""

import argparse
import base64
import http.client
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.engine.scoring.label_scorer import ScoringRequest
from medmoe.server.settings import Settings
from tests.benchmarks.support.bootstrap import median_interval, ratio_interval, shown
from tests.benchmarks.support.load import print_table
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.request_file import make_requests
from tests.support.service.server_process import server_process

_START = 3600.0
"""Seconds; a process that has failed is noticed at once."""
_TIMEOUT = 300.0
_FIRST = ("left", "right", "small", "large", "old", "new", "upper", "lower", "no", "mild")
_SECOND = ("mass", "nodule", "cyst", "fluid", "air", "stone", "tumor", "fracture", "edema", "lesion")
LABELS = tuple(f"{first} {second}" for second, first in product(_SECOND, _FIRST))
_FIXED = "What is shown in the image?"
_WORDINGS: dict[str, str | None] = {"own question": None, "fixed question": _FIXED}

_STATES = ("cold", "warm")

Times = dict[tuple[str, int, str], list[float]]
"""Seconds by wording, number of labels, and `cold` or `warm`."""


def engine_steps(prompt: Prompt, labels: Sequence[str]) -> int:
    """Of one classification: the inner nodes of the labels' trie."""
    return ScoringRequest(prompt_ids=(), paths=tuple(tuple(prompt.answer(label)) for label in labels)).steps


class Classifications:
    """One kept connection to a server."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT)

    def seconds(self, image: bytes, labels: Sequence[str], *, question: str | None) -> float:
        """Raises RuntimeError when the labels were not classified."""
        fields = {"image": base64.b64encode(image).decode(), "labels": list(labels)}
        fields |= {} if question is None else {"question": question}
        body = json.dumps(fields)
        # A connection that waited for long is closed by the server.
        self._connection.close()
        self._connection.connect()
        begun = time.perf_counter()
        self._connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        document = json.loads(response.read())
        seconds = time.perf_counter() - begun
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status}: {document['error']['message']}")
        return seconds


def measure(url: str, *, counts: Sequence[int], repeats: int, side: int) -> Times:
    asker = Classifications(url)
    images = iter(make_requests((repeats + 1) * len(_WORDINGS) * len(counts), side=side, max_tokens=1))
    times: Times = defaultdict(list)
    for repeat in range(repeats + 1):
        turn = repeat % len(counts)
        for (wording, question), count in product(_WORDINGS.items(), (*counts[turn:], *counts[:turn])):
            image = next(images).image
            for state in _STATES:
                seconds = asker.seconds(image, LABELS[:count], question=question)
                # The first repeat only warms the engine up.
                if repeat:
                    times[wording, count, state].append(seconds)
    return times


def rows(times: Times, *, counts: Sequence[int], prompt: Prompt) -> list[dict[str, Any]]:
    found = []
    for wording in _WORDINGS:
        for count in counts:
            row = {"asked": wording, "labels": str(count), "steps": engine_steps(prompt, LABELS[:count])}
            for state in _STATES:
                row[f"{state} ms"] = shown(median_interval(times[wording, count, state]), scale=1e3)
            found.append(row)
        most, fewest = max(counts), min(counts)
        row = {"asked": wording, "labels": f"{most} over {fewest}", "steps": ""}
        for state in _STATES:
            row[f"{state} ms"] = "x " + shown(
                ratio_interval(times[wording, most, state], times[wording, fewest, state])
            )
        found.append(row)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", type=Path, help="checkpoint directory; the bundled one without it")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--counts", type=lambda text: sorted(int(part) for part in text.split(",")), default=[2, 10, 50, 100]
    )
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--json", type=Path, help="write the times there too")
    options = parser.parse_args()
    if options.counts[-1] > len(LABELS):
        parser.error(f"there are {len(LABELS)} labels")
    here = machine()
    settings = Settings(**({"model": options.model} if options.model else {}))
    prompt = Prompt.from_directory(settings.model, MedMoEConfig.from_directory(settings.model))
    environment = {
        "MEDMOE_ENGINE": options.engine,
        "MEDMOE_MODEL": str(settings.model),
        "MEDMOE_MAX_LABELS": str(len(LABELS)),
        "MEDMOE_MAX_LABEL_STEPS": str(max(2, engine_steps(prompt, LABELS))),
    }
    with server_process(settings=environment) as server:
        server.wait_ready(_START)
        times = measure(server.url, counts=options.counts, repeats=options.repeats, side=options.side)
        server.stop()
    print(describe(here) + "\n")
    print_table(rows(times, counts=options.counts, prompt=prompt))
    if options.json:
        kept = [{"asked": key[0], "labels": key[1], "state": key[2], "seconds": found} for key, found in times.items()]
        options.json.write_text(json.dumps({"machine": here, "times": kept}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
