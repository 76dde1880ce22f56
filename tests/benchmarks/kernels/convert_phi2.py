"""Measure time and memory of converting a checkpoint of Med-MoE's true Phi-2 size.

    python -m tests.benchmarks.kernels.convert_phi2 DIRECTORY [--files bin]

Writes 12.9 GB of made-up weights under upstream's names into DIRECTORY (32 layers, 16 of them MoE with 4 experts and a
meta expert, CLIP-L/336, bfloat16, shards), converts them in a process of its own, prints what that took, and removes
both. The values are one block of noise over and over: conversion copies them whatever they are.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import torch
from tokenizers import pre_tokenizers

from medmoe.model.checkpoint.io import expected_shapes
from medmoe.model.checkpoint.tensor_writer import TensorSpec, TensorWriter
from medmoe.model.conversion.upstream.names import TOWER_PREFIX, upstream_name
from tests.support.checkpoints.published import PHI_2, published

ROWS, TOKENS, SHARDS = 51200, 50257, 8
NEEDED_BYTES = 28e9
CONFIG = {
    "model_type": "moe_llava_phi",
    "vocab_size": ROWS,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.4,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu_new",
    "tie_word_embeddings": False,
    "mm_image_tower": "/data/author/clip-vit-large-patch14-336",
    "mm_video_tower": None,
    "mm_hidden_size": 1024,
    "mm_vision_select_layer": -2,
    "image_projector_type": "mlp2x_gelu",
    "image_aspect_ratio": "pad",
    "moe": {
        "moe_enable": True,
        "moe_mode": "sparse",
        "num_experts": [4],
        "top_k_experts": 1,
        "use_residual": False,
    },
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every upstream tensor of the published form, the unused end of the tower included."""
    names = {upstream_name(name): shape for name, shape in expected_shapes(published(PHI_2)).items()}
    return names | {f"{TOWER_PREFIX}post_layernorm.{part}": (1024,) for part in ("weight", "bias")}


def write_source(directory: Path, *, suffix: str) -> int:
    """Write the upstream directory shard by shard; returns the bytes of its weights."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(islice(product(letters, repeat=2), TOKENS - 1 - len(letters)))
    words = [*letters, *("".join(pair) for pair in pairs), "<|endoftext|>"]
    (directory / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in pairs)]))
    noise = (torch.randn(135_000_000, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
    single = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    index, total = {}, 0
    for number, part in enumerate(_shards(shapes())):
        file = f"{single.removesuffix(suffix)}-{number + 1:05}-of-{SHARDS:05}{suffix}"
        specs = [TensorSpec(name, torch.bfloat16, shape) for name, shape in part.items()]
        total += sum(spec.nbytes for spec in specs)
        tensors = {spec.name: noise[: torch.Size(spec.shape).numel()].view(spec.shape) for spec in specs}
        if suffix == ".bin":
            torch.save({name: tensor.clone() for name, tensor in tensors.items()}, directory / file)
        else:
            with TensorWriter(directory / file, specs) as writer:
                for name, tensor in tensors.items():
                    writer.write(name, tensor)
        index |= dict.fromkeys(part, file)
    (directory / f"{single}.index.json").write_text(json.dumps({"weight_map": index}))
    return total


def _shards(names: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    limit = sum(torch.Size(shape).numel() for shape in names.values()) / SHARDS
    part: dict[str, tuple[int, ...]] = {}
    size, done = 0, 0
    for name, shape in names.items():
        part[name] = shape
        size += torch.Size(shape).numel()
        if size >= limit and done < SHARDS - 1:
            yield part
            part, size, done = {}, 0, done + 1
    yield part


def run(*arguments: object) -> tuple[str, float, dict[str, int]]:
    """Run `medmoe` and watch it: its output, seconds, and the peaks of its memory in bytes."""
    program = [sys.executable, "-m", "medmoe.model.cli", *map(str, arguments)]
    start = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    peaks = {"VmHWM": 0, "RssAnon": 0}

    def watch() -> None:
        while process.poll() is None:
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except OSError:
                return
            for name in peaks:
                found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
                peaks[name] = max(peaks[name], *found, 0)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return output, time.perf_counter() - start, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--files", choices=["safetensors", "bin"], default="safetensors")
    arguments = parser.parse_args()
    free = shutil.disk_usage(arguments.directory).free
    if free < NEEDED_BYTES:
        raise SystemExit(f"{arguments.directory} has {free / 1e9:.0f} GB free, {NEEDED_BYTES / 1e9:.0f} are needed")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as home:
        source, target = Path(home) / "source", Path(home) / "medmoe-phi-2"
        total = write_source(source, suffix=f".{arguments.files}")
        start = time.perf_counter()
        for path in source.iterdir():
            shutil.copyfile(path, Path(home) / "copy")
        copied = time.perf_counter() - start
        (Path(home) / "copy").unlink()
        output, seconds, peaks = run("convert", source, target)
        print(output)
        print(f"{total / 1e9:.2f} GB of {arguments.files} converted in {seconds:.1f} s")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"processor time: {used.ru_utime:.1f} s of its own, {used.ru_stime:.1f} s of the system")
        print(f"copying the files: {copied:.1f} s; ratio {seconds / copied:.1f}")
        print(f"peak memory {peaks['VmHWM'] / 2**30:.2f} GiB, without mapped files {peaks['RssAnon'] / 2**30:.2f} GiB")
        output, seconds, peaks = run("inspect", target, "--no-digests")
        print(f"{output}\ninspected in {seconds:.2f} s, peak memory {peaks['VmHWM'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
