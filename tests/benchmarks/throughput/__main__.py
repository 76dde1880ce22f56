"""Measure our service's cost over the engine, vLLM's own server and the reference: the same requests on each.

    python -m tests.benchmarks.throughput [--requests 64] [--repeats 5] [--clients 1,8,32] [--rates 2,4] [--json FILE]

| stack | |
|---|---|
| null | our service over an engine that answers at once: the service alone |
| engine | vLLM's AsyncLLM in the client's process, with our engine's arguments and sampling |
| vllm_serve | `vllm serve` with our plugin, the same engine arguments, OpenAI's chat route |
| service | our service, `/v1/vqa`, streamed (`service_chat`: its chat route) |
| reference | medmoe.model.medmoe in PyTorch, one request at a time and in static batches |

First every stack answers some requests alone; one that does not give the same token ids (text and number of tokens,
where it tells no ids) is not timed. Then closed loops with fresh images, the same requests again (`warm`: prefix
cache), and open loops at Poisson times at `--rates`, or else at the `--shares` of what the first stack answered in its
widest closed loop. Each run of a stack is a process of its own and the only one with an engine; runs alternate,
`--repeats` times. `--alternate` keeps two stacks alive instead, and alternates their loads.

Ratios and differences are medians over pairs of runs of the same repeat, with 95 % bootstrap intervals over the pairs.
Client and engine share the machine: `client's core` is what the client took of one. `service` asks the engine for the
log-probabilities behind its confidence, vLLM's server does so only with `--vllm-logprobs`.
`--from FILE` prints the tables of a file that `--json` wrote.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medmoe.server.settings import Settings
from tests.benchmarks.support.load import print_table
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.request_file import make_requests, write_requests
from tests.benchmarks.throughput.run import REFERENCE, UNEQUAL, Plan
from tests.benchmarks.throughput.table import comparisons, medians, over_reference, same_answers, warnings

_STACKS = ("engine", "null", "vllm_serve", "service", REFERENCE)
_FAKE_STACKS = ("fake", "null")


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


class Measurement:
    """All runs, in turn, kept after each of them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self.stacks: tuple[str, ...] = options.stacks
        self.found: dict[str, Any] = {
            "command": sys.argv[1:],
            "machine": machine(),
            "stacks": {},
            "runs": [],
            "traffic": [],
        }

    @property
    def plan(self) -> Plan:
        options = self._options
        return Plan(
            stacks=(),
            model=str(options.model),
            dtype=options.dtype,
            requests=str(self._folder / "requests.jsonl"),
            parity=options.parity,
            per_load=options.requests,
            clients=options.clients,
            rates=options.rates,
            shares=options.shares,
            batches=options.batches,
            repeats=1,
            first_repeat=0,
            null_tokens=options.null_tokens,
            vllm_logprobs=options.vllm_logprobs,
            expected=(),
            into=str(self._folder / "found.json"),
        )

    def run(self) -> None:
        options, plan = self._options, self.plan
        if options.alternate:
            plan = replace(plan, repeats=options.repeats)
        requests = make_requests(plan.needed, side=options.side, max_tokens=options.max_tokens)
        write_requests(Path(plan.requests), requests)
        if options.alternate:
            self._run(replace(plan, stacks=self.stacks))
            return
        for repeat in range(options.repeats):
            for stack in self.stacks:
                if self._unequal(stack):
                    continue
                plan = replace(plan, expected=self._expected(), rates=plan.rates or self._rates())
                self._run(replace(plan, stacks=(stack,), first_repeat=repeat))
                self.keep()

    def keep(self) -> None:
        if self._options.json:
            self._options.json.write_text(json.dumps(self.found) + "\n")

    @property
    def unequal(self) -> dict[str, list[Any]]:
        return {name: stack["unequal"] for name, stack in self.found["stacks"].items() if stack["unequal"]}

    def _run(self, plan: Plan) -> None:
        path = self._folder / "plan.json"
        path.write_text(json.dumps(asdict(plan)))
        print(f"repeat {plan.first_repeat}: {', '.join(plan.stacks)}", file=sys.stderr, flush=True)
        # Engines talk on standard output, where the tables belong.
        command = [sys.executable, "-m", "tests.benchmarks.throughput.run", str(path)]
        status = subprocess.run(command, stdout=sys.stderr).returncode
        if status not in (0, UNEQUAL):
            # Hours of other runs should not be lost with it.
            for name in plan.stacks:
                known = self.found["stacks"].get(name, {"facts": {}, "answers": []})
                self.found["stacks"][name] = known | {"unequal": [{"what": f"it ended with {status}"}]}
            return
        found = json.loads(Path(plan.into).read_text())
        for name, stack in found["stacks"].items():
            self.found["stacks"].setdefault(name, stack)
            self.found["runs"].append(
                {"stack": name, "repeat": plan.first_repeat, "load_average": found["load_average"]} | stack["facts"]
            )
            if stack["unequal"]:
                self.found["stacks"][name] = stack
        self.found["traffic"] += found["traffic"]

    def _unequal(self, stack: str) -> bool:
        return bool(self.found["stacks"].get(stack, {}).get("unequal"))

    def _expected(self) -> tuple[dict[str, Any], ...]:
        """The answers of the first stack that really has answered; one that failed before it did has none."""
        told = (self.found["stacks"][name]["answers"] for name in self._real_so_far())
        return tuple(next(filter(None, told), ()))

    def _real_so_far(self) -> list[str]:
        return [name for name in self.stacks if name in self.found["stacks"] and name not in _FAKE_STACKS]

    def _rates(self) -> tuple[float, ...]:
        return tuple(dict.fromkeys(load["level"] for load in self.found["traffic"] if load["kind"] == "open"))


def report(found: dict[str, Any], *, ours: str, others: Sequence[str]) -> None:
    traffic = found["traffic"]
    print(describe(found["machine"]))
    for name, stack in found["stacks"].items():
        facts = ", ".join(f"{key}: {value}" for key, value in stack["facts"].items())
        print(f"{name}: {facts}")
        for difference in stack["unequal"]:
            print(f"  NOT TIMED: {difference}")
    sections = (
        ("Each stack; medians over runs (95 % interval)", medians(traffic)),
        (f"{ours} against", comparisons(traffic, ours=ours, others=others)),
        (f"{ours} against {REFERENCE}", over_reference(traffic, ours=ours, reference=REFERENCE)),
        (
            "Answers under load",
            same_answers([load for load in traffic if load["stack"] != "null"], as_rung=next(iter(found["stacks"]))),
        ),
    )
    for title, rows in sections:
        if rows:
            print(f"\n{title}:\n")
            print_table(rows)
    for warning in warnings(traffic):
        print(f"\nDOUBTFUL {warning}")


def main() -> int:
    options = _options()
    if options.read is not None:
        found = json.loads(options.read.read_text())
        report(found, ours=options.ours, others=[name for name in found["stacks"] if name != options.ours])
        return 0
    with tempfile.TemporaryDirectory() as folder:
        measurement = Measurement(options, Path(folder))
        measurement.run()
    measurement.keep()
    report(measurement.found, ours=options.ours, others=[name for name in options.stacks if name != options.ours])
    return 1 if measurement.unequal else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm", help="fake: to try the benchmark itself")
    parser.add_argument("--stacks", type=lambda text: tuple(text.split(",")), help=f"of {', '.join(_STACKS)}")
    parser.add_argument("--ours", default="service", help="the stack that is compared with the others")
    parser.add_argument(
        "--model", type=Path, default=Settings.model_fields["model"].get_default(call_default_factory=True)
    )
    parser.add_argument(
        "--dtype", default="float32", help="of every engine, as MEDMOE_DTYPE; the reference computes in float32"
    )
    parser.add_argument("--requests", type=int, default=64, help="in each load")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=counts, default=(1, 8, 32), help="of the closed loops")
    parser.add_argument("--rates", type=numbers, default=(), help="requests a second of the open loops")
    parser.add_argument("--shares", type=numbers, default=(0.5, 0.8), help="of the first stack's peak, without --rates")
    parser.add_argument("--batches", type=counts, default=(1, 2, 4, 8, 16, 32), help="of the reference")
    parser.add_argument("--parity", type=int, default=8, help="requests that each stack answers alone first")
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--null-tokens", type=int, default=4, help="of the null engine's answers")
    parser.add_argument("--vllm-logprobs", action="store_true", help="ask vllm serve for log-probabilities too")
    parser.add_argument("--alternate", action="store_true", help="two stacks alive at once; needs memory for both")
    parser.add_argument("--json", type=Path, help="keep everything there, after each run")
    parser.add_argument("--from", dest="read", type=Path, help="print the tables of such a file")
    options = parser.parse_args()
    if options.stacks is None:
        options.stacks = _STACKS if options.engine == "vllm" else _FAKE_STACKS
    if options.engine == "fake":
        options.ours = "fake"
    if options.alternate and len(options.stacks) != 2:
        parser.error("--alternate takes two --stacks")
    return options


if __name__ == "__main__":
    sys.exit(main())
