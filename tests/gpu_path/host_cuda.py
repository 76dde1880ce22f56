"""Stand in for CUDA's streams, events and memory: everything runs in order on the CPU."""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from tests.gpu_path.nvml import CAPABILITY

_MEMORY = 64 << 30


class Event:
    """A CUDA event that has always happened."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, _other: "Event") -> float:
        return 0.0


class Stream:
    """A CUDA stream without work left."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cpu")
        self.cuda_stream = 0

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None: ...


STREAM = Stream()


def install() -> None:
    """Replace what torch.cuda and torch.accelerator would ask a driver."""
    properties = SimpleNamespace(
        name="pretended GPU",
        major=CAPABILITY[0],
        minor=CAPABILITY[1],
        total_memory=_MEMORY,
        multi_processor_count=4,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block_optin=232448,
        L2_cache_size=1 << 25,
        warp_size=32,
        is_integrated=False,
    )
    memory = (_MEMORY, _MEMORY)
    _replace(torch.cuda, Stream=Stream, Event=Event, stream=lambda _stream: contextlib.nullcontext())
    _answer(
        torch.cuda,
        current_stream=STREAM,
        default_stream=STREAM,
        set_stream=None,
        synchronize=None,
        empty_cache=None,
        manual_seed_all=None,
        reset_peak_memory_stats=None,
        is_current_stream_capturing=False,
        graph_pool_handle=(0, 0),
        mem_get_info=memory,
        memory_stats={},
        max_memory_allocated=0,
        memory_allocated=0,
        memory_reserved=0,
        get_device_capability=CAPABILITY,
        get_device_name=properties.name,
        get_device_properties=properties,
    )
    _answer(
        torch.accelerator,
        is_available=True,
        current_accelerator=torch.device("cpu"),
        device_count=1,
        current_device_index=0,
        set_device_index=None,
        current_stream=STREAM,
        synchronize=None,
        empty_cache=None,
        empty_host_cache=None,
        reset_peak_memory_stats=None,
        get_memory_info=memory,
        memory_stats={},
        max_memory_allocated=0,
        memory_allocated=0,
        memory_reserved=0,
        max_memory_reserved=0,
    )
    for name in ("zeros", "empty", "ones", "full", "tensor", "empty_like", "zeros_like", "rand", "arange"):
        setattr(torch, name, _unpinned(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign,assignment]
    torch._C._accelerator_setAllocatorSettings = lambda *_: None


def _replace(module: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


def _answer(module: Any, **answers: Any) -> None:
    for name, answer in answers.items():
        setattr(module, name, lambda *_, _answer=answer, **__: _answer)


def _unpinned(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*arguments: Any, pin_memory: bool | None = None, **named: Any) -> Any:
        return make(*arguments, **named)

    return made
