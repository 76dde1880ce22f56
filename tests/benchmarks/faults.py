"""Measure faults under load: what clients see, how soon the service is back, and whether a request is lost.

    python -m tests.benchmarks.faults [--engine fake] [--repeats 20] [--faults kill-engine sigterm] [--json FILE]

`kill-engine`: kill -9 of the engine's process, again and again in one server. `sigterm`: SIGTERM to a server of its own
each time. `kill-child`: kill -9 of another child of the server, whose command line holds `--mark` (one that decodes
images, say). Meanwhile `--clients` ask all the time, every second one for a stream; each fault comes at a random
moment. Lost is a request that was accepted and ended without an answer and without an error.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import httpx
import psutil

from tests.benchmarks.support.load import (
    ANSWERED,
    LOST,
    REFUSED,
    Client,
    Outcome,
    bodies,
    closed_loop,
    counts,
    percentile,
    print_table,
)
from tests.support.service.server_process import ServerProcess, server_process

_START = 600.0
_POLL = 0.01
_UNNOTICED = 5.0
"""Seconds after which a fault has not made the service unready."""
_SETTLED = 1.0
"""Seconds of load before a fault may come, and after the service is back."""


class Run:
    """One kind of fault, repeated."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.chance = random.Random(0)
        whole = bodies(max_tokens=options.max_tokens)
        streamed = bodies(max_tokens=options.max_tokens, stream=True)
        self.asked = [body for pair in zip(whole, streamed, strict=True) for body in pair]

    @contextmanager
    def server(self, module: str = "medmoe.server", **settings: str) -> Iterator[ServerProcess]:
        """Start a ready server by the program `module`, with the fake engine by the one that can be killed."""
        settings |= {
            "MEDMOE_ENGINE": self.options.engine,
            # Every death the first one: no waiting and no giving up between repeats.
            "MEDMOE_ENGINE_RESTART_WINDOW_SECONDS": "0.1",
        }
        if self.options.model:
            settings["MEDMOE_MODEL"] = self.options.model
        arguments: tuple[str, ...] = ("-m", module)
        if self.options.engine == "fake":
            arguments = ("-m", "tests.support.service.mortal_engine", "--delay", str(self.options.delay))
        with server_process(arguments=arguments, settings=settings) as server:
            server.wait_ready(_START)
            yield server

    def load(self, server: ServerProcess, stop: asyncio.Event) -> Awaitable[list[Outcome]]:
        """Ask until `stop` is set."""
        return closed_loop(Client(server), self.asked, clients=self.options.clients, until=stop)

    async def in_place(self, server: ServerProcess, victim: Callable[[ServerProcess], psutil.Process]) -> list[Any]:
        """Kill what `victim` finds, and wait until the service answers again."""
        rows = []
        left_before = leftovers(server)
        for _ in range(self.options.repeats):
            stop = asyncio.Event()
            load = asyncio.create_task(self.load(server, stop))
            await asyncio.sleep(_SETTLED + self.chance.random())
            killed = time.monotonic()
            victim(server).kill()
            noticed, ready = await back(server, since=killed)
            await asyncio.sleep(_SETTLED)
            stop.set()
            rows.append(row(await load, fault=killed, noticed_s=noticed, ready_s=ready))
            left = leftovers(server)
            rows[-1]["left_behind"] = {name: left[name] - left_before[name] for name in left}
        return rows

    async def kill_engine(self) -> list[Any]:
        with self.server(MEDMOE_DRAIN_SECONDS=str(self.options.drain_seconds)) as server:
            return await self.in_place(server, ServerProcess.engine)

    async def kill_child(self) -> list[Any]:
        with self.server(MEDMOE_DRAIN_SECONDS=str(self.options.drain_seconds)) as server:
            return await self.in_place(server, lambda server: marked_child(server, self.options.mark))

    async def sigterm(self) -> list[Any]:
        rows = []
        for _ in range(self.options.repeats):
            with self.server(MEDMOE_DRAIN_SECONDS=str(self.options.drain_seconds)) as server:
                stop = asyncio.Event()
                load = asyncio.create_task(self.load(server, stop))
                await asyncio.sleep(_SETTLED + self.chance.random())
                told = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                noticed = await not_ready(server, since=told)
                status = await asyncio.to_thread(server.process.wait)
                ended = time.monotonic() - told
                stop.set()
                rows.append(row(await load, fault=told, noticed_s=noticed, exit_s=ended))
                rows[-1]["exit_status"] = status
        return rows


def row(outcomes: list[Outcome], *, fault: float, **times: float | None) -> dict[str, Any]:
    inside = [outcome for outcome in outcomes if outcome.begun < fault < outcome.ended]
    later = [outcome for outcome in outcomes if outcome.begun >= fault]
    return {
        **times,
        "inside": counts(inside),
        "later": counts(later),
        "lost": sum(outcome.what == LOST for outcome in outcomes),
        "slowest_error_s": max((outcome.ended - fault for outcome in inside if outcome.what != ANSWERED), default=None),
    }


async def not_ready(server: ServerProcess, *, since: float) -> float:
    """Seconds until /health/ready was something else than 200, or could not be asked any more."""
    async with httpx.AsyncClient() as http:
        try:
            while (await http.get(f"{server.url}/health/ready")).status_code == httpx.codes.OK:
                await asyncio.sleep(_POLL)
        except httpx.TransportError:
            pass
    return time.monotonic() - since


async def back(
    server: ServerProcess, *, since: float, unnoticed: float = _UNNOTICED
) -> tuple[float | None, float | None]:
    """Return the seconds until the service was not ready, and until it was again; None for both if it stayed ready."""
    async with httpx.AsyncClient(timeout=_START) as http:
        noticed = None
        while time.monotonic() - since < _START:
            ready = (await http.get(f"{server.url}/health/ready")).status_code == httpx.codes.OK
            if not ready and noticed is None:
                noticed = time.monotonic() - since
            if ready and noticed is not None:
                return noticed, time.monotonic() - since
            if ready and time.monotonic() - since > unnoticed:
                return None, None
            await asyncio.sleep(_POLL)
    raise TimeoutError("the service did not come back")


def marked_child(server: ServerProcess, mark: str) -> psutil.Process:
    for child in psutil.Process(server.process.pid).children(recursive=True):
        if child.status() != psutil.STATUS_ZOMBIE and mark in " ".join([child.name(), *child.cmdline()]):
            return child
    raise LookupError(f"no child of the server has {mark!r} in its command line")


def leftovers(server: ServerProcess) -> dict[str, int]:
    """What the server's tree holds; the shared memory and the sockets may be others' too, so only growth counts."""
    memory = Path("/dev/shm")
    return {
        "processes": len(psutil.Process(server.process.pid).children(recursive=True)),
        "files": psutil.Process(server.process.pid).num_fds(),
        "shared memory": sum(1 for _ in memory.iterdir()) if memory.is_dir() else 0,
        "sockets": sum(1 for _ in Path(gettempdir()).glob("medmoe-engine-*/*")),
    }


def summary(fault: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table: the worst of each time, the sum of each count."""

    def total(name: str) -> dict[str, int]:
        names = sorted({what for one in rows for what in one[name]})
        return {what: sum(one[name].get(what, 0) for one in rows) for what in names}

    def known(name: str) -> list[float]:
        return sorted(one[name] for one in rows if one.get(name) is not None)

    ordered = known("exit_s" if "exit_s" in rows[0] else "ready_s")
    return {
        "fault": fault,
        "times": len(rows),
        "not ready after s (worst)": max(known("noticed_s"), default="never"),
        "in flight: outcome": total("inside"),
        "last error after s (worst)": max(known("slowest_error_s"), default="none"),
        "asked later: outcome": total("later"),
        "ready again, or exit, after s (median)": percentile(ordered, 0.5),
        "(worst)": percentile(ordered, 1.0),
        "lost": sum(one["lost"] for one in rows),
        "exit": sorted({one["exit_status"] for one in rows if "exit_status" in one}),
        "left behind (last)": rows[-1].get("left_behind", {}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", help="checkpoint directory; the bundled one without it")
    parser.add_argument("--faults", nargs="+", choices=("kill-engine", "sigterm", "kill-child"))
    parser.add_argument("--mark", default="", help="for kill-child: part of the child's command line")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--drain-seconds", type=float, default=30.0)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds a token, fake engine")
    parser.add_argument("--json", type=Path, help="write the figures of every repeat there too")
    options = parser.parse_args()
    run = Run(options)
    kinds = {"kill-engine": run.kill_engine, "sigterm": run.sigterm, "kill-child": run.kill_child}
    found = {fault: asyncio.run(kinds[fault]()) for fault in options.faults or ("kill-engine", "sigterm")}
    print_table([summary(fault, rows) for fault, rows in found.items()])
    print(f"\n{REFUSED!r} is a request after the end of the process; {LOST!r} is what must not be.")
    if options.json:
        options.json.write_text(json.dumps({"engine": options.engine, **found}, indent=2) + "\n")
    return 1 if any(row["lost"] for rows in found.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
