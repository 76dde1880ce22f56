"""`medmoe export-peft`: export an adapter as an ordinary PEFT LoRA, an approximation without routing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.training.config import Split
from medmoe.training.data.dataset import DATA_HELP, read_dataset
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.evaluation_data import draw

if TYPE_CHECKING:
    import torch


def export_peft(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory with an adapter.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Directory to write; must be absent or empty.")],
    data: Annotated[Path, typer.Option(help=DATA_HELP)],
    dataset: Annotated[list[str], typer.Option(help="Folder or file below --data that the mean gates are taken over.")],
    split: Annotated[Split, typer.Option(help="Split of the datasets.")] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of samples of each dataset.")] = 200,
) -> None:
    """Export an adapter as a PEFT LoRA for servers that know no gates.

    APPROXIMATE: every token gets the mean gates over the given samples instead of gates of its own. Evaluate the result
    before you use it.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise typer.BadParameter(f"{output} exists and is no empty directory")
    samples = [
        sample
        for name in dataset
        for sample in draw(read_dataset(data / name, split=split).samples, limit=limit, seed=0)
    ]
    if not samples:
        raise DataError(f"there are no samples in the {split} split")

    # Imported here because torch takes seconds.
    from medmoe.model.lora.checkpoint import has_adapter, read_adapter
    from medmoe.model.lora.peft_export import export_peft as write_peft

    if not has_adapter(checkpoint):
        raise CheckpointError(f"{checkpoint} holds no adapter")
    gates = _mean_gates(checkpoint, samples)
    config, tensors = read_adapter(checkpoint)
    write_peft(output, config, MedMoEConfig.from_directory(checkpoint), tensors, gates)
    typer.echo(f"wrote {output}, with mean gates over {len(samples)} samples")


def _mean_gates(checkpoint: Path, samples: Sequence[Sample]) -> "dict[str, torch.Tensor]":
    """Return the mean gate [N] of every router over the tokens of `samples`."""
    import torch

    from medmoe.model.image_processor import ImageProcessor
    from medmoe.model.lora.checkpoint import load_trainable
    from medmoe.model.lora.peft_export import MeanGates
    from medmoe.model.prompt import Prompt
    from medmoe.training.data.batches.collator import Collator
    from medmoe.training.data.image import read_pixels

    model, adapters = load_trainable(checkpoint, dropout=0.0, expert_dropout=0.0)
    model.eval()
    processor = ImageProcessor.from_config(model.config)

    def features(path: Path, view: int = 0) -> torch.Tensor:
        tower_output: torch.Tensor = model.vision_tower(read_pixels(path, processor=processor)[None])
        return tower_output[0]

    collator = Collator(Prompt.from_directory(checkpoint, model.config), features=features)
    mean = MeanGates()
    with (
        torch.no_grad(),
        typer.progressbar(samples, label="gates", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):
        for sample in bar:
            ids = torch.tensor([collator.encode(sample)[0]])
            mask = torch.ones_like(ids)
            model.hidden_states(ids, mask, features(sample.image)[None])
            mean.add(adapters, mask=mask.bool())
    return mean.result()
