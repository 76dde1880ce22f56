"""Compare two services with real engines, asked turn about: this checkout and another, or two settings.

    python -m tests.benchmarks.paired --against DIR [--clients 1,32] [--requests 64] [--repeats 12] [--json FILE]
    python -m tests.benchmarks.paired --set NAME=VALUE [--set NAME=VALUE]

`this` is this checkout with `--with` (NAME=VALUE, as in the environment) where given. `other` is `--against` (a git
worktree), or this checkout too, with `--set`. Fresh images, and with `--warm` the same questions again at once. See
alternation.py for what the ratios are. Needs memory for two engines.
"""

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.support.alternation import Contender, Rounds, rows, take_turns
from tests.benchmarks.support.checkouts import HERE, served
from tests.benchmarks.support.dialects import OwnRoute
from tests.benchmarks.support.load import print_table
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.request_file import make_requests
from tests.benchmarks.throughput.__main__ import counts

_SERVER = ("-m", "medmoe.server")


def setting(text: str) -> tuple[str, str]:
    name, is_one, value = text.partition("=")
    if not is_one:
        raise argparse.ArgumentTypeError("NAME=VALUE")
    return name, value


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = Rounds(clients=options.clients, requests=options.requests, repeats=options.repeats, warm=options.warm)
    stock = make_requests(rounds.needed, side=options.side, max_tokens=options.max_tokens)
    common = {"MEDMOE_ENGINE": options.engine, "MEDMOE_MAX_CONCURRENT": str(max(32, *options.clients))}
    # This one last: whoever compares reads `other` as what was before.
    sides = {"other": (options.against or HERE, options.set), "this": (HERE, options.this)}
    with ExitStack() as stack:
        contenders = []
        for name, (directory, settings) in sides.items():
            print(f"starting {name}", file=sys.stderr, flush=True)
            server = stack.enter_context(served(directory, _SERVER, common | dict(settings)))
            contenders.append(Contender(name=name, server=server, route=OwnRoute()))
        found = asyncio.run(take_turns(contenders, [stock], rounds, tell=lambda what: print(what, file=sys.stderr)))
        for contender in contenders:
            contender.server.stop()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--set", type=setting, action="append", default=[], help="of the other's environment")
    parser.add_argument("--with", dest="this", type=setting, action="append", default=[], help="of this one's")
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm", help="fake: to try the benchmark itself")
    parser.add_argument("--clients", type=counts, default=(1, 32))
    parser.add_argument("--requests", type=int, default=64, help="in each load")
    parser.add_argument("--repeats", type=int, default=12, help="rounds")
    parser.add_argument("--warm", action="store_true", help="ask each load's questions again too")
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write every load there too")
    options = parser.parse_args()
    here = machine()
    found = run(options)
    print(describe(here) + "\n")
    print_table(list(rows(found, base="other")))
    if options.json:
        options.json.write_text(json.dumps({"machine": here, "command": sys.argv[1:], "loads": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
