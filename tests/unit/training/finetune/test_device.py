"""A GPU trains and measures the whole model; a meta device stands in for it."""

from pathlib import Path

import pytest
import torch

from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.sample import Sample
from medmoe.training.finetune import measurement
from medmoe.training.finetune.features import TowerFeatures
from medmoe.training.finetune.measurement import mean_loss
from tests.support.checkpoints.tiny import save_tiny_checkpoint, tiny_config

META = torch.device("meta")
SAMPLE = Sample(id="1", dataset="d", image=Path("/1.png"), split="train", question="Is there a fracture?", answer="CT")


@pytest.fixture
def collator(tmp_path: Path) -> Collator:
    prompt = Prompt.from_directory(save_tiny_checkpoint(tmp_path / "checkpoint"), tiny_config())
    return Collator(prompt, features=lambda image, view: torch.zeros(16, 32))


def test_the_whole_model_goes_where_its_tower_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmoe.training.finetune.features.own_device", lambda: META)
    monkeypatch.setattr("medmoe.training.feature_cache.tower_fingerprint", lambda *_: "tower")
    model = MedMoE(tiny_config())
    TowerFeatures.of_model(model, folder=tmp_path)
    assert {parameter.device for parameter in model.parameters()} == {META}


def test_a_measured_batch_goes_where_the_model_is(collator: Collator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.device] = set()

    def answer_logits(_: MedMoE, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.update(column.device for column in batch.values())
        return torch.zeros(1, 5), torch.tensor([0])

    monkeypatch.setattr(measurement, "answer_logits", answer_logits)
    mean_loss(MedMoE(tiny_config()).to(META), [SAMPLE], collator=collator)
    assert seen == {META}
