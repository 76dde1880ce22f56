"""What looking at the experts costs: routing captured or not, counted or not, reported in the answer or not.

    python -m tests.benchmarks.routing_cost [--engine fake] [--requests 64] [--repeats 5] [--clients 1,32] [--json FILE]

| variant | engine captures | service counts | `include_routing` |
|---|---|---|---|
| off | no | no | no |
| captured | yes | no | no |
| counted | yes | yes | no: the service as it is |
| reported | yes | yes | yes |

The service has no switch for the first two; they are made here. A server for each of off, captured and counted, one
after the other, `--repeats` times in turn; `reported` alternates with `counted` in the same server. Fresh pictures
everywhere. Ratios to `off` are medians over the repeats with 95 % bootstrap intervals.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.bootstrap import difference_interval, median_interval, ratio_interval, shown
from tests.benchmarks.dialects import OwnRoute
from tests.benchmarks.load import print_table
from tests.benchmarks.machine import describe, machine
from tests.benchmarks.request_file import Asked, make_requests
from tests.benchmarks.routing_server import VARIANTS
from tests.benchmarks.sse_client import SseClient
from tests.benchmarks.traffic import Traffic, closed_loop, cpu_seconds
from tests.server_process import ServerProcess, server_process

_START = 3600.0
"""Seconds; a process that has failed is noticed at once."""
_STOP = 90.0
_BASE, _REPORTED = "off", "reported"


class ReportedRoute(OwnRoute):
    """POST /v1/vqa with the request's own routing in the answer."""

    def body(self, asked: Asked) -> bytes:
        return json.dumps(json.loads(super().body(asked)) | {"include_routing": True}).encode()


async def loads(
    server: ServerProcess, requests: Sequence[Asked], *, clients: Sequence[int], per_load: int, reported: bool
) -> list[dict[str, Any]]:
    """Each number of clients with fresh requests; with `reported` as well, turn about."""
    routes = {"": OwnRoute()} | ({_REPORTED: ReportedRoute()} if reported else {})
    askers = {name: SseClient(server.url, route) for name, route in routes.items()}
    fresh, found = iter(requests), []
    for asker in askers.values():
        await closed_loop(asker.ask, [next(fresh) for _ in range(max(clients))], clients=max(clients))
    root = psutil.Process(server.process.pid)
    for number in clients:
        for name, asker in askers.items():
            taken = [next(fresh) for _ in range(per_load)]
            before = cpu_seconds(root)
            replies = await closed_loop(asker.ask, taken, clients=number)
            traffic = Traffic(
                kind="closed",
                level=number,
                warm=False,
                replies=tuple(replies),
                cpu_seconds=cpu_seconds(root) - before,
                client_share=None,
            )
            found.append({"variant": name} | traffic.as_json())
    for asker in askers.values():
        asker.close()
    return found


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    needed = 2 * (max(options.clients) + len(options.clients) * options.requests)
    requests = make_requests(needed, side=options.side, max_tokens=options.max_tokens)
    settings = {"MEDMOE_ENGINE": options.engine, "MEDMOE_MAX_CONCURRENT": str(max(32, *options.clients))}
    if options.model:
        settings["MEDMOE_MODEL"] = str(options.model)
    found = []
    for repeat in range(options.repeats):
        for variant in VARIANTS:
            print(f"repeat {repeat}: {variant}", file=sys.stderr, flush=True)
            arguments = ("-m", "tests.benchmarks.routing_server", variant)
            with server_process(arguments=arguments, settings=settings) as server:
                server.wait_ready(_START)
                measured = asyncio.run(
                    loads(
                        server,
                        requests,
                        clients=options.clients,
                        per_load=options.requests,
                        reported=variant == "counted",
                    )
                )
                server.process.terminate()
                server.process.wait(_STOP)
            found += [{"repeat": repeat} | load | {"variant": load["variant"] or variant} for load in measured]
            if options.json:
                options.json.write_text(json.dumps(found) + "\n")
    return found


def rows(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A row for each load and variant."""

    def figures(label: str, variant: str, name: str) -> list[float]:
        return [load["figures"][name] for load in found if (load["label"], load["variant"]) == (label, variant)]

    return [
        {
            "load": label,
            "variant": variant,
            "answers/s": shown(median_interval(figures(label, variant, "throughput"))),
            f"x {_BASE}": _compared(figures, label, variant, "throughput", ratio_interval, scale=1.0),
            "whole ms p50": shown(median_interval(figures(label, variant, "e2e_p50")), scale=1e3),
            "added ms": _compared(figures, label, variant, "e2e_p50", difference_interval, scale=1e3),
            "CPU added ms": _compared(figures, label, variant, "cpu_per_request", difference_interval, scale=1e3),
            "failures": str(
                sum(
                    reply["failure"] is not None
                    for load in found
                    if (load["label"], load["variant"]) == (label, variant)
                    for reply in load["replies"]
                )
            ),
        }
        for label in dict.fromkeys(load["label"] for load in found)
        for variant in (_BASE, "captured", "counted", _REPORTED)
    ]


def _compared(figures: Any, label: str, variant: str, name: str, compare: Any, *, scale: float) -> str:
    if variant == _BASE:
        return "-"
    return shown(compare(figures(label, variant, name), figures(label, _BASE, name)), scale=scale)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", type=Path, help="checkpoint directory; the bundled one without it")
    parser.add_argument("--requests", type=int, default=64, help="in each load")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=lambda text: tuple(int(part) for part in text.split(",")), default=(1, 32))
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in pixels")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", type=Path, help="keep every load there, after each server")
    options = parser.parse_args()
    here = machine()
    found = run(options)
    print(describe(here) + "\n")
    print_table(rows(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
