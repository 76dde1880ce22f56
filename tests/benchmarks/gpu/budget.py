"""Plan the parts of a run within its time: a part that does not fit is named and not begun."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One process of a run."""

    name: str
    shape: str = ""
    """Which checkpoint; empty where there is none."""
    dtype: str = "bfloat16"
    seconds: float
    """What it should take on an H100, start of the engine included."""
    needs_gpu: bool = False
    """It has no meaning on a CPU."""

    @property
    def label(self) -> str:
        told = (self.name, self.shape, self.dtype if self.name == "parity" else "")
        return " ".join(word for word in told if word)

    @property
    def file(self) -> str:
        return self.label.replace(" ", "-")


class Budget:
    """Seconds for a whole run, counted from now."""

    _PATIENCE = 2.0
    """A part that takes longer than so many times what it should is hung."""
    _RESERVE = 10.0
    """For ending a part that ran past its time, and for the tables."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._clock())

    def limit(self, part: Part) -> float | None:
        """Seconds after which `part` is to be ended; None where it does not fit any more."""
        left = self.left - self._RESERVE
        if left < part.seconds:
            return None
        return min(left, part.seconds * self._PATIENCE)


def parts(*, tiny: bool) -> tuple[Part, ...]:
    """In the order of what a reader wants to know first; `tiny` checkpoints are computed in float32, as on a CPU."""
    dtype = "float32" if tiny else "bfloat16"
    planned = [
        Part(name="ceilings", seconds=20, dtype=dtype),
        Part(name="checkpoint", shape="stablelm", seconds=40),
        Part(name="parity", shape="stablelm", dtype=dtype, seconds=120),
        Part(name="steps", shape="stablelm", dtype=dtype, seconds=110),
        Part(name="eager", shape="stablelm", dtype=dtype, seconds=60),
        Part(name="requests", shape="stablelm", dtype=dtype, seconds=110),
        Part(name="checkpoint", shape="phi", seconds=60),
        Part(name="parity", shape="phi", dtype=dtype, seconds=130),
        Part(name="steps", shape="phi", dtype=dtype, seconds=120),
        *([] if tiny else [Part(name="parity", shape="stablelm", dtype="float32", seconds=110)]),
        Part(name="requests", shape="phi", dtype=dtype, seconds=120),
        Part(name="tuning", shape="stablelm", seconds=120, needs_gpu=True),
        Part(name="tuning", shape="phi", seconds=120, needs_gpu=True),
    ]
    return tuple(planned)
