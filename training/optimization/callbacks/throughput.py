"""Measure a stage's speed and memory."""

import resource
import sys
import time
from collections.abc import Callable, Sequence

import torch

from medmoe.training.data.batches.collator import IGNORE_INDEX

Reduce = Callable[[torch.Tensor], torch.Tensor]
"""A tensor of this process to the sum over all processes."""
_UNITS = ("samples", "tokens", "answer_tokens")


class Throughput:
    """Count what this process has been given; figures are those of all processes together."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._since = torch.zeros(len(_UNITS), dtype=torch.long, device=device)
        self._before = torch.zeros(len(_UNITS), dtype=torch.long)
        self._start = self._mark = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def count(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        """Count the tokens of the collator's batches without padding. Waits for no device."""
        for batch in batches:
            segments = batch.get("segments")
            rows = batch["input_ids"].shape[0]
            samples = torch.tensor(rows) if segments is None else segments.amax(dim=1).sum()
            answered = (batch["labels"] != IGNORE_INDEX).sum()
            self._since += torch.stack([samples.to(answered.device), batch["attention_mask"].sum(), answered]).to(
                self._device
            )

    def lap(self, reduce: Reduce) -> dict[str, float]:
        """Return the rates since the last lap, by name; starts the next one."""
        counts = reduce(self._since).cpu()
        now = time.perf_counter()
        seconds, self._mark = max(now - self._mark, 1e-9), now
        self._before += counts
        self._since.zero_()
        return _rates(counts, seconds) | {"peak_memory_bytes": float(self.peak_memory())}

    def total(self) -> dict[str, float]:
        """Return the rates up to the last lap, since this process began; what a killed process did before is not in
        them.
        """
        return _rates(self._before, self.seconds())

    def seconds(self) -> float:
        """Return the seconds from the beginning to the last lap."""
        return max(self._mark - self._start, 1e-9)

    def peak_memory(self) -> int:
        """Return the memory of this process in bytes: the most that tensors took on a GPU, on a CPU the most that was
        resident.
        """
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        # Linux counts kibibytes, macOS bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _rates(counts: torch.Tensor, seconds: float) -> dict[str, float]:
    return {f"{unit}_per_second": int(count) / seconds for unit, count in zip(_UNITS, counts, strict=True)}
