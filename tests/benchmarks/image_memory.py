"""Measure the service's memory after thousands of different images: memory that its caches explain, and no more.

    python -m tests.benchmarks.image_memory [--images 12000] [--every 2000] [--set MEDMOE_ENCODER_CACHE_MIB=0]

Resident memory of the service's own process and of its children, the engine first among them. It grows until the
key-value cache has been written once and the image cache is full, and from then on should not.
"""

import argparse
import asyncio
import sys
import time

from tests.benchmarks.paired import setting
from tests.benchmarks.support.dialects import OwnRoute
from tests.benchmarks.support.load import print_table, resident_mib
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.request_file import make_requests
from tests.benchmarks.support.sse_client import SseClient
from tests.benchmarks.support.traffic import closed_loop
from tests.support.service.server_process import ServerProcess, server_process

_START = 600.0


async def fill(server: ServerProcess, options: argparse.Namespace) -> list[dict[str, str]]:
    """A row for each `--every` images."""
    asker = SseClient(server.url, OwnRoute())
    requests = make_requests(options.images, side=options.side, max_tokens=2)
    rows = []
    for start in range(0, len(requests), options.every):
        some = requests[start : start + options.every]
        begun = time.monotonic()
        replies = await closed_loop(asker.ask, some, clients=options.clients)
        held = resident_mib(server)
        rows.append(
            {
                "images so far": str(start + len(some)),
                "answers/s": f"{len(some) / (time.monotonic() - begun):.1f}",
                "service MiB": f"{held['server']:.0f}",
                "children MiB": f"{held['children']:.0f}",
                "failures": str(sum(reply.failure is not None for reply in replies)),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    asker.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm", help="fake: to try the benchmark itself")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--every", type=int, default=2_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels; the model's size is its own")
    parser.add_argument("--set", type=setting, action="append", default=[], help="of the service's environment")
    options = parser.parse_args()
    here = machine()
    settings = {"MEDMOE_ENGINE": options.engine, "MEDMOE_MAX_CONCURRENT": str(options.clients)} | dict(options.set)
    with server_process(settings=settings) as server:
        server.wait_ready(_START)
        rows = asyncio.run(fill(server, options))
        server.stop()
    print(describe(here) + "\n")
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
