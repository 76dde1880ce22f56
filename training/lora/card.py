"""Write the README.md of an adapted checkpoint."""

import hashlib
from pathlib import Path
from typing import Any

from medmoe.model.config import ADAPTER_WEIGHTS_FILE
from medmoe.model.files.digest import file_sha256
from medmoe.model.lora.checkpoint import read_adapter
from medmoe.training.data.licences import licence_table
from medmoe.training.evaluation.provenance import commit
from medmoe.training.lora.config import LoRARunConfig

_CARD = """\
# {name}

Research software, not a medical device. Not for diagnosis, triage or treatment.

A Med-MoE-LoRA adapter (arXiv 2601.07935) together with its frozen base, in one directory that serves.

- base: {base}, weights SHA-256 `{base_digest}`
- adapter: {adapter_file} SHA-256 `{adapter_digest}`
- adapted linears: {modules}; {router_scope} routers; {anchor_mode} anchors
- experts by layer: {experts}; ranks by layer: {ranks}
- {low_rank:,} low-rank and {router:,} router weights, all of them used for every token

## How it was trained

{stage} on {general} general and {medical} medical samples, {steps} steps, loss {first:.3f} to {last:.3f} (first and
last logged batch), {minutes:.1f} minutes. Seed {seed}; its recipe has the SHA-256 `{recipe}`{commit}.

{data}

## What it scores

Nothing was measured in this run. Compare it on data that none of them has seen with its base, and with ordinary LoRA
of about its size, the recipe that ends in `lora-r16`; `medmoe ablate` trains and measures both on one budget:

    medmoe eval CHECKPOINT --data DATA --dataset NAME
    medmoe ablate BASE --data DATA --dataset NAME --output ABLATION
"""


def adapter_card(run: LoRARunConfig, checkpoint: Path, *, report: dict[str, Any]) -> str:
    """Return the text for the finished directory `checkpoint`; `report` is the training log of its one stage.

    Raises as medmoe.model.lora.checkpoint.read_adapter does.
    """
    adapter, tensors = read_adapter(checkpoint)
    sizes = {name: tensor.numel() for name, tensor in tensors.items()}
    router = sum(size for name, size in sizes.items() if ".router." in name)
    samples = adapter.training["samples"]
    assert isinstance(samples, dict), "the pipeline wrote it"
    return _CARD.format(
        name=run.name,
        base=adapter.base.name,
        base_digest=adapter.base.weights_sha256,
        adapter_file=ADAPTER_WEIGHTS_FILE,
        adapter_digest=file_sha256(checkpoint / ADAPTER_WEIGHTS_FILE),
        modules=", ".join(adapter.target_modules),
        router_scope=run.router_scope,
        anchor_mode=run.anchor_mode,
        experts=" ".join(str(layer.n_experts) for layer in adapter.layers),
        ranks=" ".join("+".join(map(str, layer.ranks)) for layer in adapter.layers),
        low_rank=sum(sizes.values()) - router,
        router=router,
        stage=run.stage.name,
        seed=run.seed,
        recipe=hashlib.sha256(run.to_json().encode()).hexdigest(),
        commit="" if (code := commit()) is None else f"; code of commit `{code}`",
        general=samples["general"],
        medical=samples["medical"],
        steps=report["steps"],
        first=report["first_loss"],
        last=report["last_loss"],
        minutes=report["seconds"] / 60,
        data=licence_table(entry.dataset for entry in (*run.stage.data, *run.replay)),
    )
