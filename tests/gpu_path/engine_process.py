"""Answer the parity cases with vLLM's GPU engine on the CPU.

    python -P -m tests.gpu_path.engine_process OUTPUT CHECKPOINT...

OUTPUT is a JSON file: each checkpoint's tokens, log-probabilities and routing; the kernels that Triton interpreted;
the operators that were replaced; and the model's operators that would wait for a GPU.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.gpu_path import host_worker, operators

import numpy as np  # isort: skip
import torch  # isort: skip
from torch.utils._python_dispatch import TorchDispatchMode  # isort: skip
from triton.language.extra import libdevice  # isort: skip
from triton.language import core  # isort: skip
from triton.runtime import interpreter  # isort: skip

from medmoe.model.config import MedMoEConfig
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.model.vllm_plugin.modeling_medmoe import MedMoEForConditionalGeneration
from tests.engine.local_engine import LocalEngine, local_engine
from tests.engine.parity_cases import IMAGES, QUESTIONS

PROMPTS, TOKENS = 2, 3
ASKED = (3, 5, 7)
"""Token ids whose log-probabilities are asked for, as the classifier does."""
_WAITS = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "bincount",
        "equal",
        "is_nonzero",
        "lift_fresh",
        "masked_select",
        "nonzero",
        "scalar_tensor",
        "_unique2",
    )
)
"""Operators whose result the CPU needs, or that copy from its pageable memory."""

KERNELS: Counter[str] = Counter()


class _Waits(TorchDispatchMode):
    """Counts the operators of one method that would wait for a GPU."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        by_mask = name in ("aten::index", "aten::index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if (name in _WAITS or by_mask) and not _replaced():
            self._found[name] += 1
        return function(*args, **(kwargs or {}))


def _replaced() -> bool:
    """Return whether a replaced operator or Triton's interpreter is running; on a GPU their work stays there."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.endswith(("interpreter.py", "operators.py")):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def watch(found: dict[str, Counter[str]]) -> None:
    """Count the waits in each method that the runner calls."""
    for name in ("forward", "embed_multimodal", "compute_logits"):
        method = getattr(MedMoEForConditionalGeneration, name)
        counter = found.setdefault(name, Counter())

        def watched(
            self: Any, *args: Any, _method: Any = method, _counter: Counter[str] = counter, **named: Any
        ) -> Any:
            with _Waits(_counter), _python_data(_counter):
                return _method(self, *args, **named)

        setattr(MedMoEForConditionalGeneration, name, watched)


@contextmanager
def _python_data(found: Counter[str]) -> Iterator[None]:
    """Count what moves numbers between Python and a tensor without passing the dispatcher."""
    with ExitStack() as stack:
        for place, name in [(torch, "tensor"), (torch, "as_tensor")] + [
            (torch.Tensor, name) for name in ("new_tensor", "tolist", "item", "cpu", "numpy")
        ]:
            original = getattr(place, name)

            def noted(*args: Any, _original: Any = original, _name: str = name, **named: Any) -> Any:
                if not _replaced():
                    found[_name] += 1
                return _original(*args, **named)

            stack.enter_context(patch.object(place, name, noted))
        yield


def count_kernels() -> None:
    """Count each kernel that Triton's interpreter runs, and give it the one function that has no source."""
    run = interpreter.GridExecutor.__call__

    def counted(self: Any, *args: Any, **named: Any) -> Any:
        KERNELS[self.fn.__name__] += 1
        return run(self, *args, **named)

    interpreter.GridExecutor.__call__ = counted
    libdevice.log1p = lambda x: core.tensor(interpreter.TensorHandle(np.log1p(x.handle.data), x.handle.dtype), x.type)


def answers(engine: LocalEngine, directory: Path) -> dict[str, Any]:
    """Ask the first questions greedily, and the first one's likelihoods again from the prefix cache."""
    config = MedMoEConfig.from_directory(directory)
    prompt, processor = Prompt.from_directory(directory, config), ImageProcessor.from_config(config)
    prompts = [
        {"prompt_token_ids": prompt.question(question), "multi_modal_data": {"image": processor.resize(image)}}
        for question, image in zip(QUESTIONS[:PROMPTS], IMAGES, strict=False)
    ]
    outputs = engine.generate(prompts, temperature=0, max_tokens=TOKENS, logprobs=5, ignore_eos=True)
    asked = engine.generate(prompts[:1], temperature=0, max_tokens=1, logprob_token_ids=list(ASKED), detokenize=False)[
        0
    ]
    runner = engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner
    return {
        "runner": type(runner).__module__,
        "answers": [
            {
                "tokens": list(completion.token_ids),
                "log_probs": [{token: row.logprob for token, row in one.items()} for one in completion.logprobs],
                "experts": None
                if completion.routed_experts is None
                else np.asarray(completion.routed_experts).tolist(),
            }
            for completion in (output.outputs[0] for output in outputs)
        ],
        "asked": [asked.outputs[0].logprobs[0][token].logprob for token in ASKED],
        "asked_token": asked.outputs[0].token_ids[0],
        "cached": asked.num_cached_tokens,
    }


def main(output: Path, checkpoints: list[Path]) -> None:
    """Run one engine after the other in this process."""
    waits: dict[str, Counter[str]] = {}
    watch(waits)
    count_kernels()
    results = {}
    for directory in checkpoints:
        with local_engine(
            directory,
            enforce_eager=True,
            worker_cls=f"{host_worker.__name__}.HostWorker",
            kv_cache_memory_bytes=64 << 20,
            max_num_seqs=4,
            max_num_batched_tokens=512,
        ) as engine:
            results[directory.name] = answers(engine, directory)
    output.write_text(
        json.dumps({"results": results, "kernels": KERNELS, "operators": operators.CALLS, "waits": waits})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
