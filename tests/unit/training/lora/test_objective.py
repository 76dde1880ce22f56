"""An adapter run on made-up data: what it trains, what it minimises, what it writes."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.errors import ConfigError
from medmoe.model.lora.attach import TrainableAdapters, attach_trainable
from medmoe.model.lora.checkpoint import load_adapted, read_adapter
from medmoe.model.lora.schedule import layer_of_ranks, ordinary_lora
from medmoe.model.medmoe import MedMoE
from medmoe.training.config import DataConfig, StageConfig
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.lora.config import GateLossConfig, LoRARunConfig
from medmoe.training.lora.losses import base_divergence
from medmoe.training.lora.objective import AdapterLoss
from medmoe.training.lora.pipeline import LoRARun
from medmoe.training.optimization.dropout import residual_dropout
from medmoe.training.optimization.loss import AnswerLoss, answer_logits
from medmoe.training.recipes.adapters import lora_r16, tiny_stage
from medmoe.training.recipes.tiny import tiny
from medmoe.training.recipes.trainable import ADAPTERS
from medmoe.training.stage_transition import set_trainable
from tests.support.checkpoints.tiny import save_tiny_checkpoint, tiny_config
from tests.support.checkpoints.tiny_lora import random_tensors, tiny_adapter


def adapted_model(**adapter: Any) -> tuple[MedMoE, TrainableAdapters]:
    torch.manual_seed(0)
    model = MedMoE(tiny_config(moe_layers=()))
    config = tiny_adapter(model.config, **adapter)
    adapters = attach_trainable(model, config, dropout=0.0, expert_dropout=0.0)
    adapters.fill(random_tensors(config, model.config))
    return model, adapters


def batch(*, general: tuple[bool, bool] = (True, False)) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(4, 400, (2, 12))
    ids[:, :4] = 3
    labels = torch.full_like(ids, -100)
    labels[:, 9:] = ids[:, 9:]
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    labels[1, 11:] = -100
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "features": torch.randn(2, 16, 32),
        "general": torch.tensor(general),
    }


NOTHING = GateLossConfig(balance=0.0, preservation=0.0)


def loss_of(losses: GateLossConfig, **options: Any) -> float:
    model, adapters = adapted_model()
    return float(AdapterLoss(model, adapters, losses=losses)(**batch(), **options)["loss"].detach())


def test_the_stage_trains_adapters_and_routers_and_nothing_else() -> None:
    model, _ = adapted_model(attention=False)
    block = "language_model.model.layers.{}.mlp.adapter"
    expected = {
        f"{block.format(layer)}.experts.{linear}.{group}.{part}"
        for layer in range(3)
        for linear in ("gate_proj", "up_proj", "down_proj")
        for group in ("anchors", "specialists")
        for part in "AB"
    } | {f"{block.format(layer)}.routers.block.{part}" for layer in range(3) for part in ("weight", "log_tau")}
    assert set(set_trainable(model, (ADAPTERS,))) == expected
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == expected


def test_without_losses_on_gates_it_is_the_answers_cross_entropy() -> None:
    model, adapters = adapted_model()
    expected = float(AnswerLoss(model)(**batch())["loss"].detach())
    assert float(AdapterLoss(model, adapters, losses=NOTHING)(**batch())["loss"].detach()) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["balance", "preservation", "divergence"])
def test_each_loss_counts_by_its_weight(name: str) -> None:
    plain = loss_of(NOTHING)
    once, twice = (loss_of(replace(NOTHING, **{name: weight})) - plain for weight in (1.0, 2.0))
    assert once > 1e-3
    assert twice == pytest.approx(2 * once, rel=1e-3)


def test_the_divergence_is_from_the_base_without_dropout() -> None:
    model, adapters = adapted_model()
    model.train()
    with residual_dropout(model, 0.5):
        plain, pulled = (
            AdapterLoss(model, adapters, losses=losses)(**batch())["loss"].detach()
            for losses in (NOTHING, replace(NOTHING, divergence=1.0))
        )
        adapted, _ = answer_logits(model, batch())  # the same draws: making a batch seeds them
    assert model.training
    model.eval()
    with adapters.off():
        base, _ = answer_logits(model, batch())
    general = slice(3)  # the first sample's answer tokens
    assert float(pulled - plain) == pytest.approx(float(base_divergence(adapted[general], base[general])), rel=1e-3)


def test_accumulated_batches_count_by_their_share_of_answer_tokens() -> None:
    losses = GateLossConfig()
    assert loss_of(losses, num_items_in_batch=10) == pytest.approx(loss_of(losses) * 5 / 10)


def test_a_medical_batch_moves_no_anchor_but_every_gate() -> None:
    model, adapters = adapted_model()
    AdapterLoss(model, adapters, losses=GateLossConfig())(**batch(general=(False, False)))["loss"].backward()
    for name, parameter in model.named_parameters():
        if ".anchors." in name:
            assert parameter.grad is not None
            assert not parameter.grad.any(), name
        elif ".routers." in name:
            assert parameter.grad is not None
            assert parameter.grad.any(), name


def test_every_router_is_watched() -> None:
    model, adapters = adapted_model()
    objective = AdapterLoss(model, adapters, losses=GateLossConfig())
    objective(**batch())
    assert set(objective.report()) == set(adapters.routers())
    found = objective.statistics["layers.2.mlp.router"]
    assert sum(found.mean_gate) == pytest.approx(1)
    assert found.anchor_mass_general is not None
    assert found.anchor_mass_medical is not None


def test_a_collapsed_router_raises_the_alarm(caplog: pytest.LogCaptureFixture) -> None:
    model, adapters = adapted_model()
    router = adapters.routers()["layers.1.mlp.router"].router
    with torch.no_grad():
        router.weight.zero_()
        router.weight[0] = 1.0
    norm = model.language_model.model.layers[1].post_attention_layernorm
    norm.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
    AdapterLoss(model, adapters, losses=GateLossConfig())(**batch())
    assert "layers.1.mlp.router has collapsed: one expert takes 1.000 of the gate" in caplog.text
    assert "layers.0" not in caplog.text


@pytest.mark.parametrize(("change", "reason"), [({"weight_decay": 0.01}, "weight decay"), ({"seeds": 2}, "one seed")])
def test_weight_decay_and_the_mean_of_seeds_are_refused(change: dict[str, Any], reason: str) -> None:
    recipe = lora_r16(tiny(), stage=tiny_stage(tiny()))
    with pytest.raises(ValueError, match=reason):
        replace(recipe, stage=replace(recipe.stage, **change))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light images are yes, dark ones no; every fourth is of the general domain."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "light"
    folder.mkdir()
    noise = np.random.default_rng(0)
    records = []
    for number in range(32):
        level = 220 if number % 2 else 30
        Image.fromarray((level + noise.integers(-20, 20, (32, 32, 3))).astype(np.uint8)).save(folder / f"{number}.png")
        records.append(
            {
                "id": f"light/{number}",
                "task": "vqa",
                "image": f"{number}.png",
                "split": "train",
                "question": "Is there a fracture?",
                "answer_type": "closed",
                "answer": "yes" if number % 2 else "no",
                "domain": "general" if number % 4 == 0 else "radiology",
            }
        )
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    return root


def recipe(**changes: Any) -> LoRARunConfig:
    stage = StageConfig(
        name="adapter_tuning",
        data=(DataConfig(dataset="light", source="vqa"),),
        trainable=(ADAPTERS,),
        epochs=4,
        learning_rate=5e-3,
        batch_size=8,
    )
    fields: dict[str, Any] = {
        "name": "adapted",
        "seed": 3,
        "layers": (
            layer_of_ranks((2, 4), n_anchor=1),
            layer_of_ranks((2, 4, 2), n_anchor=1),
            layer_of_ranks((2, 4, 2), n_anchor=1),
        ),
        "stage": stage,
        "anchor_mode": "replay",
    }
    return LoRARunConfig(**(fields | changes))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("base") / "base", moe_layers=())


@pytest.fixture(scope="module")
def finished(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> LoRARun:
    run = LoRARun(recipe(), base=base, data=data, directory=tmp_path_factory.mktemp("run"))
    run()
    return run


def test_a_run_writes_a_directory_that_loads_with_and_without_adapters(finished: LoRARun, base: Path) -> None:
    assert (finished.checkpoint / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    adapted, plain = load_adapted(finished.checkpoint), load_checkpoint(finished.checkpoint)
    assert adapted.config.name == "adapted"
    ids = torch.tensor([[1, 3, 3, 3, 3, 50, 51, 52]])
    features = torch.randn(1, 16, 32)
    with torch.no_grad():
        states = [model.hidden_states(ids, torch.ones_like(ids), features) for model in (adapted, plain)]
    assert not torch.allclose(*states, atol=1e-3)


def test_distilled_labels_are_drawn_from_the_probe(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of noise: without its own image the probe is unsure of each."""
    folder = tmp_path / "data" / "noise"
    folder.mkdir(parents=True)
    noise, records = np.random.default_rng(0), []
    for number in range(24):
        Image.fromarray(noise.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
        label = "yes" if number % 2 else "no"
        record = {"id": str(number), "task": "classification", "image": f"{number}.png", "split": "train"}
        records.append(record | {"label": label, "label_set": ["no", "yes"]})
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    seen: list[Sample] = []

    def train_stage(*_: object, samples: list[Sample], **__: object) -> None:
        seen.extend(samples)
        raise KeyboardInterrupt

    monkeypatch.setattr("medmoe.training.lora.pipeline.train_stage", train_stage)
    stage = replace(recipe().stage, data=(DataConfig(dataset="noise", source="classification", distilled=8),))
    with pytest.raises(KeyboardInterrupt):
        LoRARun(
            recipe(stage=stage, layers=ordinary_lora(2, num_layers=3), anchor_mode="null"),
            base=base,
            data=tmp_path / "data",
            directory=tmp_path / "run",
        )()
    answers = Counter((sample.id, sample.answer) for sample in seen)
    assert sum(answers.values()) == 24 * 8
    assert sum(times < 8 for times in answers.values()) > 24


def test_its_adapter_says_how_it_was_trained(finished: LoRARun) -> None:
    config, tensors = read_adapter(finished.checkpoint)
    assert config.training["samples"] == {"general": 8, "medical": 24}
    assert config.training["recipe"]["seed"] == 3  # type: ignore[call-overload, index]
    assert tensors["layers.0.up_proj.lora_B"][:, :2].any()  # anchors have learnt from the general samples


def test_its_card_names_base_adapter_and_data(finished: LoRARun) -> None:
    card = (finished.checkpoint / "README.md").read_text()
    for name in ("model.safetensors", "adapter_model.safetensors"):
        assert hashlib.sha256((finished.checkpoint / name).read_bytes()).hexdigest() in card
    assert "not a medical device" in card
    assert "ranks by layer: 2+4 2+4+2 2+4+2" in card
    # Three layers of rank 6, 8 and 8 on gate, up and down; routers of 2, 3 and 3 experts with a temperature each.
    assert f"{22 * 3 * (64 + 128):,} low-rank and {8 * 64 + 3} router weights" in card
    assert "| light | not recorded here: ask its owner |" in card


def test_its_loss_falls_and_its_routers_are_reported(finished: LoRARun) -> None:
    report = json.loads((finished.checkpoint.parent / "report.json").read_text())
    assert report["last_loss"] < report["first_loss"]
    assert set(report["routers"]) == {f"layers.{layer}.mlp.router" for layer in range(3)}


def test_a_finished_run_is_not_repeated_and_another_recipe_is_refused(
    finished: LoRARun, base: Path, data: Path
) -> None:
    directory = finished.checkpoint.parent
    before = (finished.checkpoint / "adapter_model.safetensors").stat().st_mtime_ns
    card = (finished.checkpoint / "README.md").read_text()
    (finished.checkpoint / "README.md").unlink()
    LoRARun(recipe(), base=base, data=data, directory=directory)()
    assert (finished.checkpoint / "README.md").read_text() == card
    assert (finished.checkpoint / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="another recipe or base"):
        LoRARun(recipe(seed=4), base=base, data=data, directory=directory)()


def test_a_killed_run_is_not_continued_on_other_data(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    run = LoRARun(recipe(), base=base, data=own, directory=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("medmoe.training.lora.pipeline.train_stage", _killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run()
    records = own / "light" / "records.jsonl"
    records.write_text(records.read_text().replace('"answer": "yes"', '"answer": "no"', 1))
    with pytest.raises(ConfigError, match="the data have changed"):
        run()


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_replay_anchors_without_general_samples_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    medical = tmp_path / "data" / "light"
    medical.mkdir(parents=True)
    text = (data / "light" / "records.jsonl").read_text()
    (medical / "records.jsonl").write_text(text.replace('"general"', '"radiology"'))
    for image in (data / "light").glob("*.png"):
        (medical / image.name).write_bytes(image.read_bytes())
    with pytest.raises(DataError, match="replay anchors"):
        LoRARun(recipe(), base=base, data=tmp_path / "data", directory=tmp_path / "run")()
