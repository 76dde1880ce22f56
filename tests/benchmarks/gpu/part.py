"""Run one part of the benchmark on a GPU in a process of its own; tests/benchmarks/gpu/__main__.py starts it.

    python -m tests.benchmarks.gpu.part NAME --into FILE --work DIRECTORY [--shape stablelm] [--dtype bfloat16] ...

FILE holds what is known so far, from the first figure on: a part that is ended loses only what it had not measured.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

NAMES = ("ceilings", "checkpoint", "parity", "steps", "eager", "requests", "tuning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints are, and files may be left")
    parser.add_argument("--shape", default="")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds, for what can be cut short")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write-config", type=Path)
    options = parser.parse_args()

    def keep(found: dict[str, Any]) -> None:
        beside = options.into.with_suffix(".new")
        beside.write_text(json.dumps(found))
        os.replace(beside, options.into)

    directory = options.work / options.shape
    dtype, device, tiny = options.dtype, options.device, options.tiny
    # Each imports what it needs and no more: it is seconds of the GPU's time.
    if options.name == "ceilings":
        from tests.benchmarks.gpu.ceilings import ceilings

        keep(ceilings(device=device, dtype=dtype, tiny=tiny))
    elif options.name == "checkpoint":
        keep(checkpoint(directory, device=device, tiny=tiny))
    elif options.name == "steps":
        from tests.benchmarks.gpu import steps

        steps.measure(directory, dtype=dtype, tiny=tiny, keep=keep)
    elif options.name == "eager":
        from tests.benchmarks.gpu import steps

        steps.measure_eager(directory, dtype=dtype, tiny=tiny, keep=keep)
    elif options.name == "parity":
        from tests.benchmarks.gpu.parity import compare

        keep(compare(directory, options.work, dtype=dtype, device=device))
    elif options.name == "requests":
        from tests.benchmarks.gpu import requests

        requests.measure(directory, dtype=dtype, device=device, tiny=tiny, keep=keep)
    else:
        from medmoe.model.config import MedMoEConfig
        from tests.benchmarks.gpu import tuning

        text = MedMoEConfig.from_directory(directory).text_config
        tuning.measure(text, limit=options.limit, write_to=options.write_config, keep=keep)


def checkpoint(directory: Path, *, device: str, tiny: bool) -> dict[str, Any]:
    """Make it, unless an earlier run has left it there. Raises RuntimeError when the disk is too small."""
    from tests.benchmarks.gpu.shapes import room_for, save_random_checkpoint, shape_config

    config = shape_config(directory.name, tiny=tiny)
    begun, size = time.perf_counter(), None
    if not directory.exists():
        if not room_for(config, directory.parent):
            raise RuntimeError(f"too little room in {directory.parent}; --directory names another place")
        # Renamed when whole: an earlier run may have been ended in the middle.
        unfinished = directory.with_name(f"{directory.name}.unfinished-{os.getpid()}")
        size = save_random_checkpoint(unfinished, config, device=device)
        unfinished.rename(directory)
    text = config.text_config
    return {
        "made": size is not None,
        "bytes": size,
        "seconds": time.perf_counter() - begun,
        "layers": text.num_hidden_layers,
        "moe_layers": len(text.moe_layers),
        "experts": text.num_experts,
        "top_k": text.num_experts_per_tok,
    }


if __name__ == "__main__":
    main()
