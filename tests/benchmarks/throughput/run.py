"""Run one stack, or two that live side by side, in a process of its own: parity, warm-up, loads, a file of results.

    python -m tests.benchmarks.throughput.run PLAN.json

tests.benchmarks.throughput.__main__ writes the plan and starts this; what stands in it is `Plan`.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.support.exchange import loop_factory
from tests.benchmarks.support.request_file import Asked, read_requests
from tests.benchmarks.support.traffic import Reply, Traffic, closed_loop, cpu_seconds, open_loop
from tests.benchmarks.throughput.live import STACKS, Live, Setup

REFERENCE = "reference"
UNEQUAL = 4
"""Exit status when a stack does not answer what the others answer: it was not timed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to run."""

    stacks: tuple[str, ...]
    model: str
    dtype: str
    requests: str
    """The request file: `parity`, then as many to warm up as there are `clients` at most, then fresh ones."""
    parity: int
    per_load: int
    clients: tuple[int, ...]
    rates: tuple[float, ...]
    """Requests a second of the open loops."""
    shares: tuple[float, ...]
    """Of the throughput at the most clients, where `rates` are not known yet."""
    batches: tuple[int, ...]
    repeats: int
    """In this process; each takes fresh requests."""
    first_repeat: int
    null_tokens: int
    vllm_logprobs: bool
    expected: tuple[dict[str, Any], ...]
    """Of each parity request, what another stack has answered: `prompt_ids`, `token_ids`, `text`, `tokens`."""
    into: str

    @property
    def setup(self) -> Setup:
        return Setup(
            model=Path(self.model),
            dtype=self.dtype,
            clients=max(self.clients),
            null_tokens=self.null_tokens,
            vllm_logprobs=self.vllm_logprobs,
        )

    @property
    def loads(self) -> int:
        """That take fresh requests, in one repeat."""
        return len(self.clients) + max(len(self.rates), len(self.shares))

    @property
    def needed(self) -> int:
        """Requests in the file."""
        return self.parity + max(self.clients) + self.repeats * self.loads * self.per_load


async def run(plan: Plan) -> dict[str, Any]:
    """Everything that was seen, ready for JSON."""
    requests = read_requests(Path(plan.requests))
    parity, rest = requests[: plan.parity], requests[plan.parity :]
    warm_up, fresh = rest[: max(plan.clients)], rest[max(plan.clients) :]
    found: dict[str, Any] = {"load_average": os.getloadavg(), "stacks": {}, "traffic": []}
    expected = plan.expected
    async with AsyncExitStack() as stack:
        lives: dict[str, tuple[Live, Any]] = {}
        for name in plan.stacks:
            lives[name] = await _enter(stack, name, plan.setup)
            live = lives[name][0]
            answers = await _asked_alone(live, parity)
            unequal: list[dict[str, Any]] = []
            if name not in ("null", "fake"):
                unequal = differences(expected, answers)
                # The first that really answers is what those beside it are held to.
                expected = expected or tuple(answers)
            found["stacks"][name] = {"facts": live.facts, "answers": answers, "unequal": unequal}
            if unequal:
                return found
            await closed_loop(live.ask, warm_up, clients=1 if name == REFERENCE else max(plan.clients))
        rates = plan.rates
        for repeat in range(plan.repeats):
            slices = _slices(fresh, size=plan.per_load, start=repeat * plan.loads)
            taken = [next(slices) for _ in range(plan.loads)]
            for name, (live, model) in lives.items():
                if name == REFERENCE:
                    loads = await _batched(plan, live, model, taken)
                else:
                    loads = await _loaded(plan, live, taken, rates=rates)
                    rates = rates or tuple(load.level for load in loads if load.kind == "open")
                for load in loads:
                    found["traffic"].append({"stack": name, "repeat": plan.first_repeat + repeat} | load.as_json())
    return found


def differences(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a stack answered something else; what either of the two does not tell is not compared.

    Nothing is expected of the first stack. Raises ValueError when some of the answers are missing.
    """
    return [
        {"request": number, "what": what, "expected": wanted[what], "found": got[what]}
        for number, (wanted, got) in enumerate(zip(expected, found, strict=bool(expected)))
        for what in ("prompt_ids", "token_ids", "text", "tokens")
        if wanted[what] is not None and got[what] is not None and wanted[what] != got[what]
    ]


async def _enter(stack: AsyncExitStack, name: str, setup: Setup) -> tuple[Live, Any]:
    if name == REFERENCE:
        # Here and not above: no other stack needs torch in this process.
        from tests.benchmarks.throughput.reference import reference

        return await stack.enter_async_context(reference(setup))
    return await stack.enter_async_context(STACKS[name](setup)), None


async def _asked_alone(live: Live, requests: Sequence[Asked]) -> list[dict[str, Any]]:
    answers = []
    for asked in requests:
        answer = await live.ask_with_ids(asked)
        fields = asdict(answer)
        answers.append(
            {
                "text": fields["text"],
                "tokens": fields["tokens"],
                "token_ids": list(answer.token_ids) if answer.token_ids else None,
                "prompt_ids": list(answer.prompt_ids) if answer.prompt_ids else None,
            }
        )
    return answers


async def _loaded(
    plan: Plan, live: Live, slices: Sequence[Sequence[Asked]], *, rates: Sequence[float]
) -> list[Traffic]:
    found, waiting = [], iter(slices)
    for clients in plan.clients:
        requests = next(waiting)
        for warm in (False, True):
            found.append(await _measured(live, requests, kind="closed", level=clients, warm=warm))
    peak = found[-2].figures()["throughput"]
    for rate in rates or [share * peak for share in plan.shares]:
        found.append(await _measured(live, next(waiting), kind="open", level=rate, warm=False))
    return found


async def _batched(plan: Plan, live: Live, model: Any, slices: Sequence[Sequence[Asked]]) -> list[Traffic]:
    found = [await _measured(live, slices[0], kind="closed", level=1, warm=False)]
    for size in plan.batches:
        before = cpu_seconds(live.root)
        replies = await asyncio.to_thread(model.batches, slices[0], size=size)
        found.append(_traffic(replies, "batch", size, warm=False, cpu=cpu_seconds(live.root) - before))
    return found


async def _measured(live: Live, requests: Sequence[Asked], *, kind: str, level: float, warm: bool) -> Traffic:
    own = psutil.Process(os.getpid())
    before, own_before, begun = cpu_seconds(live.root), _own_seconds(own), time.monotonic()
    late = 0.0
    if kind == "closed":
        replies = await closed_loop(live.ask, requests, clients=int(level))
    else:
        replies, late = await open_loop(live.ask, requests, rate=level, seed=len(requests))
    seconds = time.monotonic() - begun
    share = (_own_seconds(own) - own_before) / seconds
    return _traffic(
        replies,
        kind,
        level,
        warm=warm,
        cpu=cpu_seconds(live.root) - before,
        client_share=share if live.client_apart else None,
        late=late,
    )


def _traffic(replies: list[Reply], kind: str, level: float, *, warm: bool, cpu: float, **more: Any) -> Traffic:
    return Traffic(kind=kind, level=level, warm=warm, replies=tuple(replies), cpu_seconds=cpu, **more)


def _own_seconds(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def _slices(requests: Sequence[Asked], *, size: int, start: int) -> Iterator[Sequence[Asked]]:
    for place in range(start * size, len(requests), size):
        yield requests[place : place + size]


def main() -> int:
    fields = json.loads(Path(sys.argv[1]).read_text())
    plan = Plan(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        found = runner.run(run(plan))
    Path(plan.into).write_text(json.dumps(found))
    return UNEQUAL if any(stack["unequal"] for stack in found["stacks"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
