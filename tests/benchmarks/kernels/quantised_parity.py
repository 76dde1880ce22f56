"""Measure what quantised experts change in answers and save in memory: one checkpoint, float and quantised.

    python tests/benchmarks/kernels/quantised_parity.py CHECKPOINT [--quantization int8_per_channel] [--prompts 32]

Each row is an engine of its own, started with the service's own arguments. The first one answers; at every token of its
answers the others say what they think there, given the same image, question and words so far, so that one early
difference does not make all that follows incomparable. Images and questions are made up here: for what quantisation
costs in accuracy, evaluate the service on a dataset.

The rows in 16 bit with float experts tell the rounding of the format apart from that of the experts.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import MedMoEError
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.server.engine.deployment.check import check_deployment
from medmoe.server.engine.deployment.engine_arguments import engine_arguments
from medmoe.server.engine.deployment.number_format import engine_dtype
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu, prepare_environment
from medmoe.server.settings import Settings

WORDS = (
    "What modality is used to take this image?",
    "Which part of the body does this image belong to?",
    "Does the picture contain a lung?",
    "Is there an abnormality on the left side?",
    "Which organ is the largest in the picture?",
    "Is this an axial view?",
    "What colour is the background?",
    "Is there a fracture?",
)
_HEADER = (
    "| engine | log-prob of the answer's token: mean, max | of any token: mean, max | same greedy token"
    " | same whole answer | same experts | experts' tensors | process at its largest |"
    "\n|---|---|---|---|---|---|---|---|"
)
_UNLIKELY = np.log(1e-4)


def drawn_image(number: int) -> Image.Image:
    """Soft bright shapes on black, like no organ in particular; RGB, 256 pixels a side."""
    random = np.random.default_rng(number)
    drawn = Image.new("L", (256, 256))
    pen = ImageDraw.Draw(drawn)
    for _ in range(int(random.integers(3, 9))):
        x, y = random.integers(0, 200, 2)
        width, height = random.integers(20, 120, 2)
        pen.ellipse((x, y, x + width, y + height), fill=int(random.integers(60, 255)))
    grain = random.normal(0, 12, (256, 256))
    return Image.fromarray((np.asarray(drawn) + grain).clip(0, 255).astype(np.uint8)).convert("RGB")


def answer(settings: Settings, output: Path, *, prompts: int, max_tokens: int, given: Path | None) -> None:
    """Run one engine in this process, and leave in `output` what it says; `given` holds the first engine's tokens."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    config = MedMoEConfig.from_directory(settings.model)
    prepare_environment(settings, dtype=engine_dtype(settings, config, on_cpu=built_for_cpu()))
    from vllm import LLM, SamplingParams  # noqa: TID251  (a measurement of the engine drives the engine)
    from vllm.platforms import current_platform  # noqa: TID251

    on_cpu = current_platform.is_cpu()
    arguments = engine_arguments(settings, config, on_cpu=on_cpu)
    llm = LLM(**arguments, max_logprobs=-1, disable_log_stats=True, distributed_executor_backend="uni")
    prompt, processor = Prompt.from_directory(settings.model, config), ImageProcessor.from_config(config)
    asked = [prompt.question(WORDS[number % len(WORDS)]) for number in range(prompts)]
    images = [processor.resize(drawn_image(number)) for number in range(prompts)]
    eos = config.text_config.eos_token_id

    def run(texts: list[list[int]], images: list[Image.Image], *, length: int, scores: bool) -> list[object]:
        inputs = [
            {"prompt_token_ids": ids, "multi_modal_data": {"image": image}}
            for ids, image in zip(texts, images, strict=True)
        ]
        parameters = SamplingParams(
            temperature=0, max_tokens=length, logprobs=-1 if scores else None, stop_token_ids=[eos]
        )
        return list(llm.generate(inputs, parameters, use_tqdm=False))

    free = [list(one.outputs[0].token_ids) for one in run(asked, images, length=max_tokens, scores=False)]
    forced = free if given is None else np.load(given, allow_pickle=False)["lengths"].tolist()
    if given is not None:
        tokens = np.load(given)["forced"].tolist()
        ends = np.cumsum(forced).tolist()
        forced = [tokens[end - length : end] for end, length in zip(ends, forced, strict=True)]
    places = [(number, place) for number, words in enumerate(forced) for place in range(len(words))]
    scored = run(
        [[*asked[number], *forced[number][:place]] for number, place in places],
        [images[number] for number, _ in places],
        length=1,
        scores=True,
    )
    rows = [one.outputs[0].logprobs[0] for one in scored]
    layers = list(config.text_config.moe_layers)
    # The last place of each answer has routed all that came before it.
    last = {number: index for index, (number, _) in enumerate(places)}
    experts = [np.asarray(scored[index].outputs[0].routed_experts)[:, layers].ravel() for index in last.values()]
    np.savez(
        output,
        lengths=[len(words) for words in forced],
        forced=[token for words in forced for token in words],
        free_lengths=[len(words) for words in free],
        free=[token for words in free for token in words],
        log_probs=np.array([[row[token].logprob for token in range(len(row))] for row in rows], dtype=np.float32),
        experts=np.concatenate(experts),
        expert_bytes=sum(llm.apply_model(expert_bytes)),
        process_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def expert_bytes(model: object) -> int:
    """Of the routed experts' parameters as the engine holds them: weights, scales and biases."""
    modules = [module for module in model.modules() if hasattr(module, "w13_weight")]  # type: ignore[attr-defined]
    return sum(tensor.numel() * tensor.element_size() for module in modules for tensor in module.parameters())


def report(name: str, this: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> str:
    """One row of the table: `this` engine against the one that answered."""
    difference = np.abs(this["log_probs"] - first["log_probs"])
    spoken = np.take_along_axis(difference, first["forced"][:, None], axis=1)
    # A token at 1e-30 may well be at 1e-31: only what either engine finds possible is compared.
    possible = np.maximum(this["log_probs"], first["log_probs"]) > _UNLIKELY
    greedy = this["log_probs"].argmax(axis=1) == first["log_probs"].argmax(axis=1)
    whole = [a == b for a, b in zip(answers(this), answers(first), strict=True)]
    return (
        f"| {name} | {spoken.mean():.1e}, {spoken.max():.1e}"
        f" | {difference[possible].mean():.1e}, {difference[possible].max():.1e}"
        f" | {greedy.sum()}/{len(greedy)} | {sum(whole)}/{len(whole)}"
        f" | {(this['experts'] == first['experts']).mean():.2%}"
        f" | {int(this['expert_bytes']) / 2**20:.2f} MiB | {int(this['process_bytes']) / 2**20:.0f} MiB |"
    )


def answers(kept: dict[str, np.ndarray]) -> list[list[int]]:
    ends = np.cumsum(kept["free_lengths"])
    return [part.tolist() for part in np.split(kept["free"], ends[:-1])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--quantization", default="int8_per_channel")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=12)
    parser.add_argument("--dtype", default="auto", help="of the one engine that --into runs")
    parser.add_argument("--into", type=Path, help="run one engine and leave its answers in this file")
    parser.add_argument("--given", type=Path, help="the answers of the first engine")
    options = parser.parse_args()
    settings = Settings(model=options.checkpoint, quantization=options.quantization, dtype=options.dtype)
    try:
        check_deployment(settings, MedMoEConfig.from_directory(options.checkpoint))
    except MedMoEError as error:
        print(error, file=sys.stderr)
        return 2
    if options.into is not None:
        answer(settings, options.into, prompts=options.prompts, max_tokens=options.max_tokens, given=options.given)
        return 0
    engines = [("none", "float32"), ("none", "bfloat16"), (options.quantization, "bfloat16")]
    with tempfile.TemporaryDirectory() as folder:
        kept = []
        for index, (quantization, dtype) in enumerate(engines):
            into = Path(folder) / f"{index}.npz"
            command = [sys.executable, __file__, str(options.checkpoint), "--into", str(into), "--dtype", dtype]
            command += ["--quantization", quantization, "--prompts", str(options.prompts)]
            command += ["--max-tokens", str(options.max_tokens)]
            command += ["--given", str(Path(folder) / "0.npz")] if index else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            kept.append(dict(np.load(into)))
    names = [f"{dtype}, experts {quantization if quantization != 'none' else dtype}" for quantization, dtype in engines]
    print(f"{options.checkpoint.name}: {options.prompts} prompts with images, {len(kept[0]['forced'])} tokens answered")
    print(f"\nAgainst {names[0]}:\n\n{_HEADER}")
    for name, one in zip(names, kept, strict=True):
        print(report(name, one, kept[0]))
    print(f"\nAgainst {names[1]}:\n\n{_HEADER}\n{report(names[2], kept[2], kept[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
