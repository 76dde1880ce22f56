"""Measure overload, and clients that leave: the real server as a process, in one run.

    python -m tests.benchmarks.overload [--engine fake] [--seconds 30] [--leavers 1000] [--json FILE]

Capacity is what as many clients as there are slots get, each asking again when it was answered. Then requests come at
1, 3 and 10 times that rate, open loop: at random (Poisson) times that do not wait for anybody, latency counted from the
time when a request was due. Goodput is what was answered per second. Client and server share the machine; `late` says
by how much the client itself was behind (99th percentile): where that is not small, the client was the bottleneck.
`client's core` is the share of one core that the client took, which stands for machines elsewhere: the answers had to
do without it.

At last as many clients as `--leavers` says begin to read a stream and hang up; nothing may be left in the engine.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.support.exchange import loop_factory
from tests.benchmarks.support.load import (
    ANSWERED,
    Client,
    Outcome,
    bodies,
    closed_loop,
    counts,
    percentile,
    print_table,
    requests_inside,
    resident_mib,
)
from tests.support.service.server_process import ServerProcess, server_process

_START = 600.0
_LEFT_SECONDS = 30.0


async def capacity(client: Client, asked: list[bytes], *, clients: int, seconds: float) -> float:
    """Answers per second when there is always one more request than slots."""
    stop = asyncio.Event()
    loop = asyncio.create_task(closed_loop(client, asked, clients=clients, until=stop))
    await asyncio.sleep(seconds)
    stop.set()
    outcomes = await loop
    end = max(outcome.ended for outcome in outcomes)
    begun = min(outcome.begun for outcome in outcomes)
    return sum(outcome.what == ANSWERED for outcome in outcomes) / (end - begun)


async def open_loop(
    client: Client, asked: list[bytes], *, rate: float, seconds: float, chance: random.Random
) -> tuple[list[Outcome], float]:
    """Requests at Poisson times, and the 99th percentile of how late they were sent."""
    begun = due = time.monotonic()
    tasks: list[asyncio.Task[Outcome]] = []
    lateness: list[float] = []
    while (due := due + chance.expovariate(rate)) < begun + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        lateness.append(time.monotonic() - due)
        tasks.append(asyncio.create_task(client.ask(asked[len(tasks) % len(asked)], due=due)))
    return list(await asyncio.gather(*tasks)), percentile(lateness, 0.99)


async def measured(
    server: ServerProcess, client: Client, asked: list[bytes], *, factor: float, peak: float, seconds: float
) -> dict[str, Any]:
    """One row of the table."""
    before = resident_mib(server)
    begun, begun_cpu = time.monotonic(), time.process_time()
    outcomes, late = await open_loop(
        client, asked, rate=factor * peak, seconds=seconds, chance=random.Random(str(factor))
    )
    client_share = (time.process_time() - begun_cpu) / (time.monotonic() - begun)
    answered = [outcome for outcome in outcomes if outcome.what == ANSWERED]
    # Not what was answered later: at 1x the queue may be long at the end.
    goodput = sum(outcome.ended <= begun + seconds for outcome in answered) / seconds
    latencies = [outcome.seconds for outcome in answered]
    after = resident_mib(server)
    return {
        "load": f"{factor:g}x",
        "requests": len(outcomes),
        "goodput/s": goodput,
        "of peak": goodput / peak,
        "p50 s": percentile(latencies, 0.5),
        "p99 s": percentile(latencies, 0.99),
        "late s": late,
        "client's core": client_share,
        "outcomes": counts(outcomes),
        "server MiB": [round(before["server"], 1), round(after["server"], 1)],
        "children MiB": [round(before["children"], 1), round(after["children"], 1)],
    }


async def leave_early(client: Client, asked: list[bytes], *, leavers: int, at_once: int) -> dict[str, Any]:
    """Clients that hang up after the first event of a stream, until `leavers` have; then what is left inside."""
    gone = refused = 0

    async def one(number: int) -> None:
        nonlocal gone, refused
        while gone < leavers:
            if await client.leave_early(asked[number % len(asked)]):
                gone += 1
            else:
                refused += 1
                await asyncio.sleep(0.1)

    begun = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(at_once)))
    ended = time.monotonic()
    while any((left := await requests_inside(client)).values()) and time.monotonic() - ended < _LEFT_SECONDS:
        await asyncio.sleep(0.05)
    return {
        "clients that left": gone,
        "refused meanwhile": refused,
        "seconds": ended - begun,
        "left inside": left,
        "until empty s": time.monotonic() - ended,
    }


async def run(options: argparse.Namespace, server: ServerProcess) -> dict[str, Any]:
    whole = bodies(max_tokens=options.max_tokens)
    streamed = bodies(max_tokens=options.stream_tokens, stream=True)
    client = Client(server)
    # Once not counted: caches fill, and the engine may still compile for a batch that it has not seen.
    await capacity(client, whole, clients=options.slots, seconds=options.seconds / 3)
    peak = await capacity(client, whole, clients=options.slots + 1, seconds=options.seconds)
    print(f"capacity: {peak:.2f} answers/s with {options.slots} slots\n")
    rows = []
    for factor in options.loads:
        rows.append(await measured(server, client, whole, factor=factor, peak=peak, seconds=options.seconds))
    print_table(rows)
    left = await leave_early(client, streamed, leavers=options.leavers, at_once=options.slots)
    print()
    print_table([left])
    last = await client.ask(whole[0])
    memory = resident_mib(server)
    print(f"\nafterwards: {last.what}; resident MiB: {memory['server']:.0f} + {memory['children']:.0f} in children")
    return {"capacity": peak, "loads": rows, "leavers": left, "afterwards": last.what, "resident_mib": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", help="checkpoint directory; the bundled one without it")
    parser.add_argument("--dtype", default="auto", help="as MEDMOE_DTYPE")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument(
        "--loads", type=lambda text: [float(part) for part in text.split(",")], default=[1.0, 3.0, 10.0]
    )
    parser.add_argument("--slots", type=int, default=8, help="MEDMOE_MAX_CONCURRENT")
    parser.add_argument("--queue", type=int, default=16, help="MEDMOE_MAX_QUEUED")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--stream-tokens", type=int, default=64, help="of the answers that nobody reads to the end")
    parser.add_argument("--leavers", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds a token, fake engine")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    settings = {
        "MEDMOE_ENGINE": options.engine,
        "MEDMOE_DTYPE": options.dtype,
        "MEDMOE_MAX_CONCURRENT": str(options.slots),
        "MEDMOE_MAX_QUEUED": str(options.queue),
    }
    if options.model:
        settings["MEDMOE_MODEL"] = options.model
    real = options.engine == "vllm"
    arguments = (
        ("-m", "medmoe.server")
        if real
        else ("-m", "tests.support.service.mortal_engine", "--delay", str(options.delay))
    )
    with server_process(arguments=arguments, settings=settings) as server:
        server.wait_ready(_START)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            figures = runner.run(run(options, server))
    if options.json:
        options.json.write_text(json.dumps({"engine": options.engine, **figures}, indent=2) + "\n")
    clean = not any(figures["leavers"]["left inside"].values()) and figures["afterwards"] == ANSWERED
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
