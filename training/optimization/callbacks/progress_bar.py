"""Show Trainer's progress, to a terminal and to a log file."""

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers.trainer_callback import ProgressCallback

_SHOWN = ("loss", "learning_rate", "tokens_per_second")
_REDRAW = 30.0  # seconds between two states of the bar in a file, where none replaces the one before


class ProgressBar(ProgressCallback):
    """Show a bar, and a line with a few figures for each logged step; TensorBoard has all of them."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                unit="step",
                dynamic_ncols=True,
                mininterval=0.5 if sys.stderr.isatty() else _REDRAW,
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            shown = ", ".join(f"{name} {logs[name]:.4g}" for name in _SHOWN if name in logs)
            self.training_bar.write(f"step {state.global_step}: {shown}", file=sys.stderr)
