"""Measure hangs under load: what clients see and how soon the service is back. Real processes that hang without dying.

    python -m tests.benchmarks.hangs [--engine fake] [--repeats 20] [--kinds stop pause loop decoders calm]

`stop`: SIGSTOP to the engine for good. `pause`: SIGSTOP, and SIGCONT after `--pause-seconds`. `loop`: an endless loop
in the engine's worker. `decoders`: SIGSTOP to the process that forks decoders, while its decoders are killed. `calm`:
load with long questions for `--calm-seconds` and no fault, with the watchdog's default patience; elsewhere it waits
`--hang-seconds`. Exit status 1 when a request was lost, or an engine was killed in `calm`: a false alarm.
"""

import argparse
import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.faults import Run, back, marked_child, row, summary
from tests.benchmarks.support.load import print_table
from tests.support.service.server_process import ServerProcess

_START = 600.0
_SETTLED = 1.0
"""Seconds of load before a fault may come, and after the service is back."""
_SPAWNER = "sandbox.worker"
"""Part of the command line of the process that forks decoders."""

Fault = Callable[[ServerProcess], Awaitable[None]]


class Hangs(Run):
    """Repeat each kind of hang in a server of its own."""

    @contextmanager
    def server(self, module: str = "tests.support.service.looping_engine", **settings: str) -> Iterator[ServerProcess]:
        """See Run.server; the engine's worker can be sent into an endless loop."""
        with super().server(module, **settings) as server:
            yield server

    async def repeated(self, fault: Fault, *, unnoticed: float) -> list[dict[str, Any]]:
        """Cause `fault` under load and wait until the service answers again, `repeats` times.

        A service that is still ready after `unnoticed` seconds has not been made unready by it.
        """
        rows = []
        with self.server(MEDMOE_ENGINE_HANG_SECONDS=str(self.options.hang_seconds)) as server:
            for _ in range(self.options.repeats):
                stop = asyncio.Event()
                load = asyncio.create_task(self.load(server, stop))
                await asyncio.sleep(_SETTLED + self.chance.random())
                caused = time.monotonic()
                causing = asyncio.ensure_future(fault(server))
                noticed, ready = await back(server, since=caused, unnoticed=unnoticed)
                await causing
                await asyncio.sleep(_SETTLED)
                stop.set()
                rows.append(row(await load, fault=caused, noticed_s=noticed, ready_s=ready))
                rows[-1]["hangs"] = hangs(server)
        return rows

    async def stop(self) -> list[dict[str, Any]]:
        async def stopped(server: ServerProcess) -> None:
            server.engine().suspend()

        return await self.repeated(stopped, unnoticed=_START)

    async def pause(self) -> list[dict[str, Any]]:
        seconds = self.options.pause_seconds

        async def paused(server: ServerProcess) -> None:
            engine = server.engine()
            engine.suspend()
            await asyncio.sleep(seconds)
            # Gone where the watchdog was less patient than that.
            if engine.is_running():
                engine.resume()

        return await self.repeated(paused, unnoticed=seconds + 2 * _SETTLED)

    async def loop(self) -> list[dict[str, Any]]:
        async def looped(server: ServerProcess) -> None:
            process = server.engine() if self.options.engine == "fake" else server.process
            process.send_signal(signal.SIGUSR1)

        return await self.repeated(looped, unnoticed=_START)

    async def decoders(self) -> list[dict[str, Any]]:
        async def stopped(server: ServerProcess) -> None:
            spawner = marked_child(server, _SPAWNER)
            spawner.suspend()
            for worker in spawner.children():
                worker.kill()

        return await self.repeated(stopped, unnoticed=self.options.hang_seconds)

    async def calm(self) -> list[dict[str, Any]]:
        long = " ".join(["Is there a fracture of the left lung or of the right one?"] * self.options.sentences)
        self.asked = [json.dumps(json.loads(body) | {"question": long}).encode() for body in self.asked]
        with self.server() as server:
            stop = asyncio.Event()
            begun = time.monotonic()
            load = asyncio.create_task(self.load(server, stop))
            await asyncio.sleep(self.options.calm_seconds)
            stop.set()
            return [row(await load, fault=begun, noticed_s=None, ready_s=None) | {"hangs": hangs(server)}]


def hangs(server: ServerProcess) -> int:
    """Return how many engines the service has killed because they hung."""
    found = re.search(r"^medmoe_engine_hangs_total\S* (\S+)", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("stop", "pause", "loop", "decoders", "calm")
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", help="checkpoint directory; the bundled one without it")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--sentences", type=int, default=40, help="length of the questions of `calm`")
    parser.add_argument("--hang-seconds", type=float, default=30.0)
    parser.add_argument("--pause-seconds", type=float, default=20.0)
    parser.add_argument("--calm-seconds", type=float, default=3600.0)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds a token, fake engine")
    parser.add_argument("--json", type=Path, help="write the figures of every repeat there too")
    options = parser.parse_args()
    run = Hangs(options)
    found = {kind: asyncio.run(getattr(run, kind)()) for kind in options.kinds}
    print_table(
        [summary(kind, rows) | {"engines killed": max(one["hangs"] for one in rows)} for kind, rows in found.items()]
    )
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, **found}, indent=2) + "\n")
    lost = any(one["lost"] for rows in found.values() for one in rows)
    return 1 if lost or any(one["hangs"] for one in found.get("calm", ())) else 0


if __name__ == "__main__":
    sys.exit(main())
