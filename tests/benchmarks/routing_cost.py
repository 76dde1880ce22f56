"""Measure the cost of routing statistics and of the score of how unlike the training images an image is.

    python -m tests.benchmarks.routing_cost [--engine fake] [--requests 48] [--repeats 20] [--starts 3]

| variant | engine captures routing | service counts it | engine scores images | `include_routing` |
|---|---|---|---|---|
| off | no | no | no | no |
| captured | yes | no | no | no |
| counted | yes | yes | no | no |
| scored | yes | yes | yes | no: the service as it is |
| reported | yes | yes | yes | yes |

The service has no switch for the first three; they are made here. All but `off` are one process,
and their table tells percents apart. `off` is another one, alive beside it (memory for two engines), and two
processes of the same code differ by more than that: hence `--starts` pairs of them, and an interval over the pairs.
Fresh images everywhere; see alternation.py.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.support.alternation import Contender, Rounds, rows, take_turns
from tests.benchmarks.support.bootstrap import median_interval, shown
from tests.benchmarks.support.dialects import OwnRoute
from tests.benchmarks.support.load import print_table
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.request_file import Asked, make_requests
from tests.benchmarks.support.routing_server import UNCOUNTED, UNSCORED, VARIANTS
from tests.benchmarks.throughput.__main__ import counts
from tests.support.service.server_process import ServerProcess, server_process

_START = 3600.0
"""Seconds; a process that has failed is noticed at once."""


class MarkedRoute(OwnRoute):
    """POST /v1/vqa with other fields."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def body(self, asked: Asked) -> bytes:
        return json.dumps(json.loads(super().body(asked)) | self._fields).encode()


_CONTENDERS: dict[str, tuple[str, OwnRoute]] = {
    "off": ("off", OwnRoute()),
    "captured": ("capturing", MarkedRoute(max_tokens=UNCOUNTED)),
    "counted": ("capturing", MarkedRoute(max_tokens=UNSCORED)),
    "scored": ("capturing", OwnRoute()),
    "reported": ("capturing", MarkedRoute(include_routing=True)),
}
"""By name: the server, and how it is asked."""


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = Rounds(clients=options.clients, requests=options.requests, repeats=options.repeats)
    requests = make_requests(len(_CONTENDERS) * rounds.needed, side=options.side, max_tokens=UNCOUNTED - 1)
    stocks = [requests[start : start + rounds.needed] for start in range(0, len(requests), rounds.needed)]
    found = []
    for start in range(options.starts):
        loads = asyncio.run(_pair(options, rounds, stocks, turn=start))
        found += [load | {"start": start, "repeat": load["repeat"] + start * rounds.repeats} for load in loads]
        if options.json:
            options.json.write_text(json.dumps({"command": sys.argv[1:], "loads": found}) + "\n")
    return found


async def _pair(
    options: argparse.Namespace, rounds: Rounds, stocks: Sequence[Sequence[Asked]], *, turn: int
) -> list[dict[str, Any]]:
    settings = {"MEDMOE_ENGINE": options.engine, "MEDMOE_MAX_CONCURRENT": str(max(32, *options.clients))}
    if options.model:
        settings["MEDMOE_MODEL"] = str(options.model)
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for variant in VARIANTS[:: -1 if turn % 2 else 1]:
            print(f"start {turn}: {variant}", file=sys.stderr, flush=True)
            arguments = ("-m", "tests.benchmarks.support.routing_server", variant)
            servers[variant] = stack.enter_context(server_process(arguments=arguments, settings=settings))
            await asyncio.to_thread(servers[variant].wait_ready, _START)
        contenders = [
            Contender(name=name, server=servers[variant], route=route, stock=stock)
            for stock, (name, (variant, route)) in enumerate(_CONTENDERS.items())
        ]
        found = await take_turns(contenders, stocks, rounds, tell=lambda what: print(what, file=sys.stderr))
        for server in servers.values():
            await asyncio.to_thread(server.stop)
    return found


def between(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """`captured` against `off`: the median of a pair's rounds is one figure."""
    for label in dict.fromkeys(load["label"] for load in found):
        row = {"load": label, "pairs": str(len({load["start"] for load in found}))}
        for name, title in (
            ("throughput", "answers x off"),
            ("ttft_p50", "first text x off"),
            ("cpu_per_request", "CPU x off"),
        ):
            ratios = [
                median(_rounds(found, start, label, "captured", name))
                / median(_rounds(found, start, label, "off", name))
                for start in sorted({load["start"] for load in found})
            ]
            row[title] = shown(median_interval(ratios))
        yield row


def _rounds(found: Sequence[dict[str, Any]], start: int, label: str, variant: str, name: str) -> list[float]:
    return [
        load["figures"][name]
        for load in found
        if (load["start"], load["label"], load["variant"]) == (start, label, variant)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", type=Path, help="checkpoint directory; the bundled one without it")
    parser.add_argument("--requests", type=int, default=48, help="in each load")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of each pair")
    parser.add_argument("--clients", type=counts, default=(1, 32))
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--starts", type=int, default=3, help="pairs of processes")
    parser.add_argument("--json", type=Path, help="keep every load there, after each pair")
    options = parser.parse_args()
    here = machine()
    found = run(options)
    print(describe(here) + "\n")
    print("In one process:\n")
    in_one = [load for load in found if load["variant"] != "off"]
    print_table(list(rows(in_one, base="captured")))
    print("\nThe score alone:\n")
    print_table(list(rows([load for load in in_one if load["variant"] in ("counted", "scored")], base="counted")))
    print("\nBetween processes, captured against off:\n")
    print_table(list(between(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
