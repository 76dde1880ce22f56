"""A converted checkpoint computes what the upstream one means, in every published form."""

from pathlib import Path

import pytest
import torch

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.prompt import Prompt
from tests.support.checkpoints.upstream import TOWER_OPTIONS, Variant, upstream_logits, write_upstream

_FORMS = [
    ("dense", 1, "none"),
    ("moe_llava", 2, "none"),
    ("med_moe", 1, "none"),
    ("med_moe", 2, "none"),
    ("med_moe", 1, "tied"),
    ("med_moe", 2, "both"),
]
VARIANTS = [
    Variant(backbone, family, top_k, residual)
    for backbone in ("phi", "stablelm", "llama")
    for family, top_k, residual in _FORMS
]
_SIGLIP = {"vision_heads": 2, "vision_activation": "gelu_pytorch_tanh", "vision_eps": 1e-6, "vision_image_size": 18}
QUESTION = "What modality is used?"


def check_logits(variant: Variant, tmp_path: Path, *, files: str = "safetensors", **options: object) -> Report:
    tensors = write_upstream(tmp_path / "source", variant, files=files)
    options = {"vision_image_size": 16, **TOWER_OPTIONS} | options
    report = convert(tmp_path / "source", tmp_path / "target", Options(**options))  # type: ignore[arg-type]
    model = load_checkpoint(tmp_path / "target")
    prompt = Prompt.from_directory(tmp_path / "target", model.config)
    ids = prompt.question(QUESTION)
    image = ids.index(model.config.image_token_id)
    size = model.config.vision_config.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    theirs = upstream_logits(tensors, variant, before=ids[:image], after=ids[image + 1 :], pixels=pixels)
    expanded = torch.tensor([prompt.expand(ids)])
    with torch.inference_mode():
        ours = model(expanded, torch.ones_like(expanded), pixels)[0]
    rows = model.config.text_config.vocab_size
    assert ours.shape == (len(theirs), rows)
    torch.testing.assert_close(ours, theirs[:, :rows], rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
    return report


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_logits_are_upstreams(variant: Variant, tmp_path: Path) -> None:
    report = check_logits(variant, tmp_path)
    assert report.source["family"] == variant.family
    assert report.source["backbone"] == variant.backbone
    copies = 2 * (4 if variant.backbone == "phi" else 3) if variant.residual == "both" else 0
    assert len(report.tied) == copies


@pytest.mark.parametrize("files", ["sharded", "bin", "sharded-bin"])
def test_every_file_layout_gives_the_same_model(files: str, tmp_path: Path) -> None:
    check_logits(Variant(residual="both"), tmp_path, files=files)


def test_siglip_loses_its_first_patch_as_upstream_does(tmp_path: Path) -> None:
    check_logits(Variant(backbone="stablelm", tower="siglip"), tmp_path, **_SIGLIP)
