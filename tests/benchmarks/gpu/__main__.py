"""Measure serving on an NVIDIA GPU: parity with the reference, and speed against what the GPU can do at best.

    python -m tests.benchmarks.gpu [--minutes 14] [--json FILE] [--write-config DIR] [--only steps,parity]
    python -m tests.benchmarks.gpu --dry-run       # on a CPU, tiny shapes in float32: shows that it works, no more

| part | what |
|---|---|
| ceilings | bytes a second copied and operations a second multiplied, by torch |
| checkpoint | random weights of StableLM-2-1.6B's and Phi-2's Med-MoE at true size, made on the GPU |
| parity | greedy tokens, routing and log-probabilities of the engine against the PyTorch reference on the same GPU |
| steps | decoding steps at batch 1, 8, 64, 256 against the bytes that they must read; prefill against the products |
| eager | the steps at batch 1 and 64 without graphs |
| requests | images and questions a second at 1, 8 and 64 clients against the reference, one at a time |
| tuning | vLLM's fused MoE kernel for four experts: its default against the best configuration found |

Each part is a process of its own; what it found is in FILE as soon as it has ended, or has been ended. Parts that do
not fit the time any more are left out, and named. The exit status is 1 when
a part failed or the engine was not the reference, and 2 without a GPU.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from medmoe.server.engine.deployment.vllm_environment import built_for_cpu
from tests.benchmarks.gpu.budget import Budget, Part, parts
from tests.benchmarks.gpu.part import NAMES
from tests.benchmarks.gpu.table import report
from tests.benchmarks.support.machine import describe, machine

DEFAULT_MINUTES = 14.0
"""A GPU is often lent for a quarter of an hour."""
_LOG_LINES = 40
_NEEDS_CHECKPOINT = ("parity", "steps", "eager", "requests", "tuning")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES)
    parser.add_argument("--json", type=Path, help="where results are kept, as they come")
    parser.add_argument("--write-config", type=Path, metavar="DIR", help="for VLLM_TUNED_CONFIG_FOLDER")
    parser.add_argument("--directory", type=Path, help="keeps checkpoints (20 GB) and logs")
    parser.add_argument("--shapes", choices=["published", "tiny"], default="published")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(NAMES), metavar="PART,...")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, whatever the machine has")
    options = parser.parse_args()
    if unknown := set(options.only) - set(NAMES):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if reason := no_cpu() if options.dry_run else no_gpu():
        print(reason, file=sys.stderr)
        return 2
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="medmoe-gpu-") as temporary:
        tiny = options.dry_run or options.shapes == "tiny"
        work = (options.directory or Path(temporary)) / ("tiny" if tiny else "published")
        work.mkdir(parents=True, exist_ok=True)
        results = run(options, work, tiny=tiny)
    print(report(results))
    return 0 if all(map(is_well, results["parts"])) else 1


def no_gpu() -> str | None:
    """Why nothing can be measured here; None where it can."""
    if not torch.cuda.is_available():
        return "no GPU: torch sees no CUDA device; --dry-run goes through the motions on a CPU"
    if built_for_cpu():
        return "no vLLM for the GPU: the installed one is built for CPUs (docker/requirements/gpu.txt has the other)"
    return None


def no_cpu() -> str | None:
    """Why a dry run is impossible; None where it is not."""
    return None if built_for_cpu() else "a dry run needs vLLM's build for CPUs; --shapes tiny is quick on a GPU"


def is_well(part: dict[str, Any]) -> bool:
    """Whether it did what it was begun for, and the engine was the reference."""
    in_order = part["status"] in ("done", "left out", "needs a GPU")
    return in_order and all(part["figures"].get("holds", {}).values())


def run(options: argparse.Namespace, work: Path, *, tiny: bool) -> dict[str, Any]:
    """All parts in their order; results are in `options.json` after each."""
    budget = Budget(options.minutes * 60)
    results: dict[str, Any] = {"machine": machine(), "dry_run": options.dry_run, "tiny": tiny, "parts": []}
    print(describe(results["machine"]), file=sys.stderr, flush=True)
    wanted = {"ceilings", "checkpoint", *options.only}
    for part in parts(tiny=tiny):
        if part.name not in wanted:
            continue
        told = {"name": part.name, "shape": part.shape, "dtype": part.dtype, "label": part.label}
        results["parts"].append(told | outcome(part, options, work, budget=budget, tiny=tiny))
        print(f"{part.label}: {results['parts'][-1]['status']}", file=sys.stderr, flush=True)
        if options.json is not None:
            beside = options.json.with_suffix(".new")
            beside.write_text(json.dumps(results, indent=1) + "\n")
            os.replace(beside, options.json)
    return results


def outcome(part: Part, options: argparse.Namespace, work: Path, *, budget: Budget, tiny: bool) -> dict[str, Any]:
    """What became of one part: its status, why, seconds, and figures as far as it came."""
    if part.needs_gpu and options.dry_run:
        return {"status": "needs a GPU", "reason": "the kernel is Triton's", "figures": {}}
    if part.name in _NEEDS_CHECKPOINT and not (work / part.shape).is_dir():
        return {"status": "left out", "reason": "its checkpoint was not made", "figures": {}}
    limit = budget.limit(part)
    if limit is None:
        reason = f"takes about {part.seconds:.0f} s, and {budget.left:.0f} s were left"
        return {"status": "left out", "reason": reason, "figures": {}}
    into, log = work / f"{part.file}.json", work / f"{part.file}.log"
    into.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.benchmarks.gpu.part", part.name, "--into", str(into), "--work", str(work)]
    command += ["--shape", part.shape, "--dtype", part.dtype, "--limit", f"{part.seconds * 0.8:.0f}"]
    command += ["--device", "cpu" if options.dry_run else "cuda", *(["--tiny"] if tiny else [])]
    command += ["--write-config", str(options.write_config.resolve())] if options.write_config else []
    begun = time.monotonic()
    with log.open("w") as output:
        code = _run(command, output, environment=_environment(part, dry_run=options.dry_run), limit=limit)
    found = {
        "seconds": round(time.monotonic() - begun, 1),
        "figures": json.loads(into.read_text()) if into.exists() else {},
    }
    if code == 0:
        return found | {"status": "done"}
    if code is None:
        return found | {"status": "ended", "reason": f"not done after {limit:.0f} s", "log": _tail(log)}
    return found | {"status": "failed", "reason": f"exit status {code}", "log": _tail(log)}


def _run(command: list[str], output: Any, *, environment: dict[str, str], limit: float) -> int | None:
    """Exit status; None where it was ended, with all that it had started."""
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Also what an engine that failed has left behind: the next one needs its memory.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(part: Part, *, dry_run: bool) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDMOE_")}
    if not dry_run:
        # Why it has chosen its kernels, and what starting it took, are in its log alone.
        environment.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    if part.dtype == "float32":
        # Triton multiplies float32 in TF32, ten bits of mantissa, unless told otherwise.
        environment["TRITON_F32_DEFAULT"] = "ieee"
    return environment


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-_LOG_LINES:]


if __name__ == "__main__":
    sys.exit(main())
