"""What looking at the experts costs: routing captured or not, counted or not, reported in the answer or not.

    python -m tests.benchmarks.routing_cost [--engine fake] [--requests 48] [--repeats 20] [--clients 1,32]

| variant | engine captures | service counts | `include_routing` |
|---|---|---|---|
| off | no | no | no |
| captured | yes | no | no |
| counted | yes | yes | no: the service as it is |
| reported | yes | yes | yes |

The service has no switch for the first two; they are made here. Three servers are alive at once (memory for three
engines), `reported` asks that of `counted`, and all four take turns; fresh pictures everywhere. See turn_about.py.
"""

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.dialects import OwnRoute
from tests.benchmarks.load import print_table
from tests.benchmarks.machine import describe, machine
from tests.benchmarks.request_file import Asked, make_requests
from tests.benchmarks.routing_server import VARIANTS
from tests.benchmarks.turn_about import Contender, Rounds, rows, take_turns
from tests.server_process import server_process

_START = 3600.0
"""Seconds; a process that has failed is noticed at once."""
_STOP = 90.0


class ReportedRoute(OwnRoute):
    """POST /v1/vqa with the request's own routing in the answer."""

    def body(self, asked: Asked) -> bytes:
        return json.dumps(json.loads(super().body(asked)) | {"include_routing": True}).encode()


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = Rounds(clients=options.clients, requests=options.requests, repeats=options.repeats)
    requests = make_requests(2 * rounds.needed, side=options.side, max_tokens=options.max_tokens)
    settings = {"MEDMOE_ENGINE": options.engine, "MEDMOE_MAX_CONCURRENT": str(max(32, *options.clients))}
    if options.model:
        settings["MEDMOE_MODEL"] = str(options.model)
    with ExitStack() as stack:
        contenders = []
        for variant in reversed(VARIANTS):
            print(f"starting {variant}", file=sys.stderr, flush=True)
            arguments = ("-m", "tests.benchmarks.routing_server", variant)
            server = stack.enter_context(server_process(arguments=arguments, settings=settings))
            server.wait_ready(_START)
            contenders.append(Contender(name=variant, server=server, route=OwnRoute()))
            if variant == "counted":
                contenders.append(Contender(name="reported", server=server, route=ReportedRoute(), stock=1))
        stocks = [requests[: rounds.needed], requests[rounds.needed :]]
        found = asyncio.run(take_turns(contenders, stocks, rounds, tell=lambda what: print(what, file=sys.stderr)))
        for contender in contenders:
            contender.server.process.terminate()
            contender.server.process.wait(_STOP)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", type=Path, help="checkpoint directory; the bundled one without it")
    parser.add_argument("--requests", type=int, default=48, help="in each load")
    parser.add_argument("--repeats", type=int, default=20, help="rounds")
    parser.add_argument("--clients", type=lambda text: tuple(int(part) for part in text.split(",")), default=(1, 32))
    parser.add_argument("--side", type=int, default=512, help="of the pictures, in pixels")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write every load there too")
    options = parser.parse_args()
    here = machine()
    found = run(options)
    print(describe(here) + "\n")
    print_table(list(rows(found, base="off")))
    if options.json:
        options.json.write_text(json.dumps({"machine": here, "command": sys.argv[1:], "loads": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
