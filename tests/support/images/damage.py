"""Damage an upstream directory in ways that must be refused; each function takes the directory."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints.upstream import edit_config

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
Change = Callable[[Path], object]


def tensors(**changes: torch.Tensor | None) -> Change:
    """Replace, add (dots written as __) or remove tensors of model.safetensors."""

    def change(directory: Path) -> None:
        found = load_file(directory / WEIGHTS)
        for key, value in changes.items():
            name = key.replace("__", ".")
            if value is None:
                del found[name]
            else:
                found[name] = value
        save_file(found, directory / WEIGHTS)

    return change


def without(part: str) -> Change:
    """Remove every tensor whose name holds `part`."""

    def change(directory: Path) -> None:
        found = load_file(directory / WEIGHTS)
        save_file({name: value for name, value in found.items() if part not in name}, directory / WEIGHTS)

    return change


def fifo(name: str) -> Change:
    """Replace a file by a pipe without a writer, on which a plain read blocks."""

    def change(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)

    return change


def link(name: str, to: str) -> Change:
    def change(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(to)

    return change


def config(**fields: Any) -> Change:
    return lambda directory: edit_config(directory, **fields)


def text(name: str, content: str) -> Change:
    return lambda directory: (directory / name).write_text(content)


def index(change: Callable[[dict[str, str]], object]) -> Change:
    def edit(directory: Path) -> None:
        document = json.loads((directory / INDEX).read_text())
        change(document["weight_map"])
        (directory / INDEX).write_text(json.dumps(document))

    return edit


def data(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda directory: (directory / name).write_bytes(change((directory / name).read_bytes()))
