"""`medmoe convert`: convert an upstream checkpoint."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from medmoe.model.cli import with_headings
from medmoe.model.files.terminal_safe import MAX_MESSAGE, terminal_safe


@with_headings(
    {
        "Images and vision tower": "image_mode vision_tower vision_layers vision_heads vision_activation vision_eps "
        "vision_image_size",
        "Tokenizer and prompt": "template eos_token pad_token cut_rows",
    }
)
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Upstream checkpoint directory: Med-MoE, MoE-LLaVA or dense LLaVA.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Directory to write; must be absent or empty.")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the written weights; auto takes the most common one. Float32 gates stay float32."),
    ] = "auto",
    name: Annotated[
        str | None, typer.Option(help="Name of the model in answers; by default the name of TARGET.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Experts for each token, if config.json does not say.")] = None,
    image_mode: Annotated[
        Literal["pad", "crop"] | None, typer.Option(help="How images become square; overrides image_aspect_ratio.")
    ] = None,
    vision_tower: Annotated[
        Path | None, typer.Option(help="transformers directory of the CLIP or SigLIP tower, if SOURCE has no tower.")
    ] = None,
    vision_layers: Annotated[
        int | None, typer.Option(help="Number of blocks of an unknown tower, used or not.")
    ] = None,
    vision_heads: Annotated[int | None, typer.Option(help="Number of attention heads of an unknown tower.")] = None,
    vision_activation: Annotated[
        Literal["gelu", "quick_gelu", "gelu_pytorch_tanh"] | None, typer.Option(help="Activation of an unknown tower.")
    ] = None,
    vision_eps: Annotated[float | None, typer.Option(help="LayerNorm epsilon of an unknown tower.")] = None,
    vision_image_size: Annotated[
        int | None, typer.Option(help="Image size in pixels of an unknown SigLIP tower.")
    ] = None,
    template: Annotated[
        Literal["phi", "stablelm", "qwen", "openchat", "mistral", "minicpm", "single_question"] | None,
        typer.Option(
            help="Prompt template, by upstream's name; single_question for one without turns. By default upstream's is "
            "assumed, with a warning."
        ),
    ] = None,
    eos_token: Annotated[str | None, typer.Option(help="End-of-sequence token; overrides the tokenizer's.")] = None,
    pad_token: Annotated[
        str | None, typer.Option(help="Padding token; overrides upstream's for this backbone.")
    ] = None,
    cut_rows: Annotated[
        bool, typer.Option("--cut-rows", help="Cut the embedding to the tokenizer even by more than padding explains.")
    ] = False,
    expert_domain: Annotated[
        list[str] | None, typer.Option(help="Domain of each expert, in order; repeat the option.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the safetensors files with the .bin files beside them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint at TARGET.")] = False,
) -> None:
    """Convert an upstream checkpoint and report what became of each tensor."""
    # Imported here because torch takes seconds.
    from medmoe.model.conversion.converter import convert as convert_checkpoint
    from medmoe.model.conversion.options import Options

    options = Options(
        dtype=dtype,
        name=name,
        top_k=top_k,
        image_mode=image_mode,
        vision_tower=vision_tower,
        vision_layers=vision_layers,
        vision_heads=vision_heads,
        vision_activation=vision_activation,
        vision_eps=vision_eps,
        vision_image_size=vision_image_size,
        template=template,
        eos_token=eos_token,
        pad_token=pad_token,
        cut_rows=cut_rows,
        expert_domains=tuple(expert_domain or ()),
        verify=verify,
        overwrite=overwrite,
    )
    with (
        _ended_by_signals(),
        typer.progressbar(length=1000, label="converting", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):
        report = convert_checkpoint(
            source, target, options, progress=lambda done, total: bar.update(1000 * done // total - bar.pos)
        )
    typer.echo("\n".join([*report.summary(), f"written to {terminal_safe(str(target), limit=MAX_MESSAGE)}"]))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that staged files are removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    # nohup ignores SIGHUP.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
