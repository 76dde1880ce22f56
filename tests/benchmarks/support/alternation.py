"""Ask servers that are alive side by side turn about in short loads: a machine whose speed wanders harms all alike.

What waits takes no processor time. In each round every contender gets a load, in an order that is drawn: who comes
after another of the same server finds it warm. A ratio is the median of the rounds' ratios, with a 95 % bootstrap
interval over the rounds; between two processes of the same code it can be a few percent off one as long as they live.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from tests.benchmarks.support.bootstrap import difference_interval, median_interval, ratio_interval, shown
from tests.benchmarks.support.request_file import Asked
from tests.benchmarks.support.sse_client import Dialect, SseClient
from tests.benchmarks.support.traffic import Traffic, closed_loop, cpu_seconds
from tests.support.service.server_process import ServerProcess


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One way of being answered. Several may share a server, if they never ask the same."""

    name: str
    server: ServerProcess
    route: Dialect
    stock: int = 0
    """Which of the requests are its own: contenders of one server need fresh ones each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """How much of what."""

    clients: tuple[int, ...]
    requests: int
    """In a load."""
    repeats: int
    """Rounds that count; one before them does not."""
    warm: bool = False
    """Also ask each load's questions again, at once."""

    @property
    def needed(self) -> int:
        """Requests that one stock must hold."""
        return (self.repeats + 1) * len(self.clients) * self.requests


async def take_turns(
    contenders: Sequence[Contender], stocks: Sequence[Sequence[Asked]], rounds: Rounds, *, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Each load as Traffic.as_json has it, with its `variant` and its `repeat`; the first round's are left out."""
    askers = {contender.name: SseClient(contender.server.url, contender.route) for contender in contenders}
    found = []
    for repeat in range(rounds.repeats + 1):
        tell(f"round {repeat}")
        chance = random.Random(repeat)
        for place, clients in enumerate(rounds.clients):
            start = (repeat * len(rounds.clients) + place) * rounds.requests
            for contender in chance.sample(contenders, len(contenders)):
                requests = stocks[contender.stock][start : start + rounds.requests]
                for warm in (False, True)[: 1 + rounds.warm]:
                    load = await _load(askers[contender.name], contender.server, requests, clients=clients, warm=warm)
                    if repeat:
                        found.append({"variant": contender.name, "repeat": repeat} | load.as_json())
    return found


async def _load(
    asker: SseClient, server: ServerProcess, requests: Sequence[Asked], *, clients: int, warm: bool
) -> Traffic:
    root = psutil.Process(server.process.pid)
    before = cpu_seconds(root)
    replies = await closed_loop(asker.ask, requests, clients=clients)
    # While others have their turn the server would close them, at any moment.
    asker.close()
    return Traffic(
        kind="closed",
        level=clients,
        warm=warm,
        replies=tuple(replies),
        cpu_seconds=cpu_seconds(root) - before,
    )


def rows(found: Sequence[dict[str, Any]], *, base: str) -> Iterator[dict[str, str]]:
    """A row for each load and contender, against `base`."""

    def figures(label: str, variant: str, name: str) -> list[float]:
        return [load["figures"][name] for load in found if (load["label"], load["variant"]) == (label, variant)]

    def compared(label: str, variant: str, name: str, compare: Any, *, scale: float = 1.0) -> str:
        if variant == base:
            return "-"
        return shown(compare(figures(label, variant, name), figures(label, base, name)), scale=scale)

    for label in dict.fromkeys(load["label"] for load in found):
        for variant in dict.fromkeys(
            load["variant"] for load in sorted(found, key=lambda load: load["variant"] != base)
        ):
            replies = [
                reply
                for load in found
                if (load["label"], load["variant"]) == (label, variant)
                for reply in load["replies"]
            ]
            yield {
                "load": label,
                "variant": variant,
                "answers/s": shown(median_interval(figures(label, variant, "throughput"))),
                f"x {base}": compared(label, variant, "throughput", ratio_interval),
                "first text ms p50": shown(median_interval(figures(label, variant, "ttft_p50")), scale=1e3),
                f"first x {base}": compared(label, variant, "ttft_p50", ratio_interval),
                "CPU ms": shown(median_interval(figures(label, variant, "cpu_per_request")), scale=1e3),
                "CPU added ms": compared(label, variant, "cpu_per_request", difference_interval, scale=1e3),
                "failures": str(sum(reply["failure"] is not None for reply in replies)),
            }
