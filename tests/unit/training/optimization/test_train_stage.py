"""One stage on Trainer: what the runtime may change of it, what may not, and how it ends when something is wrong."""

import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.errors import ConfigError
from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import MoE
from medmoe.model.prompt import Prompt
from medmoe.training.config import StageConfig
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.step_checkpoints import StepCheckpoints, TrainingError
from medmoe.training.optimization.train_stage import train_stage
from tests.support.checkpoints.tiny import save_tiny_checkpoint

STAGE = StageConfig(
    name="stage",
    data=(),
    trainable=(r"projector\.", r"language_model\."),
    epochs=2,
    learning_rate=1e-3,
    batch_size=6,
    pack=2,
)
RUNTIME = RuntimeConfig(checkpoint_every=2, log_every=1, precision="float32")
SAMPLES = [
    Sample(
        id=str(number),
        dataset="d",
        image=Path(f"/{number // 2}.png"),
        split="train",
        question="Is there a fracture?" if number % 3 else "What modality is used to take this image?",
        answer=("CT", "MRI", "X-ray")[number % 3],
    )
    for number in range(24)
]


def features(image: Path, view: int = 0) -> torch.Tensor:
    return torch.rand(16, 32, generator=torch.Generator().manual_seed(int(image.stem)))


@dataclass(frozen=True)
class Trained:
    model: MedMoE
    report: dict[str, Any]
    directory: Path

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.report["losses"]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("start") / "checkpoint")


@pytest.fixture(scope="module")
def train(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def train(
        stage: StageConfig = STAGE, samples: list[Sample] = SAMPLES, directory: Path | None = None, **runtime: Any
    ) -> Trained:
        model = load_checkpoint(checkpoint)
        directory = directory or tmp_path_factory.mktemp("stage")
        report = train_stage(
            model,
            stage,
            samples=samples,
            collator=Collator(Prompt.from_directory(checkpoint, model.config), features=features),
            directory=directory,
            seed=5,
            runtime=replace(RUNTIME, **runtime),
        )
        return Trained(model, report, directory)

    return train


@pytest.fixture(scope="module")
def plain(train: Any) -> Trained:
    trained: Trained = train()
    return trained


def test_the_loss_falls(plain: Trained) -> None:
    assert plain.report["steps"] == 4
    assert plain.losses[-1] < plain.losses[0]
    assert plain.report["mean_loss"] == pytest.approx(sum(plain.losses) / 4)


def test_a_stage_of_one_step_trains(train: Any, checkpoint: Path) -> None:
    trained = train(stage=replace(STAGE, epochs=0.1))
    assert trained.report["steps"] == 1
    before = dict(load_checkpoint(checkpoint).named_parameters())
    name = "projector.linear_1.weight"
    assert not torch.equal(trained.model.get_parameter(name), before[name])


@pytest.mark.parametrize(
    ("ratio", "rates"), [(0.0, [1, 0.75, 0.25]), (0.5, [0, 0.5, 1, 0.5]), (1.0, [0, 1 / 3, 2 / 3, 1])]
)
def test_the_learning_rate_warms_up_over_a_share_of_the_steps(train: Any, ratio: float, rates: list[float]) -> None:
    steps = len(rates)
    trained = train(stage=replace(STAGE, warmup_ratio=ratio, epochs=steps * STAGE.batch_size / 12))
    log = EventAccumulator(str(trained.directory / "tensorboard")).Reload()
    logged = [row.value / STAGE.learning_rate for row in log.Scalars("train/learning_rate")]
    assert logged[:steps] == pytest.approx(rates, abs=1e-6)


@pytest.mark.parametrize("runtime", [{"accumulate": 3}, {"gradient_checkpointing": True}, {"checkpoint_every": 0}])
def test_how_a_stage_is_carried_out_does_not_change_its_losses(
    train: Any, plain: Trained, runtime: dict[str, Any]
) -> None:
    assert train(**runtime).losses == pytest.approx(plain.losses, rel=1e-5)


def test_the_balance_of_gates_that_learn_is_part_of_the_loss(train: Any, plain: Trained) -> None:
    """Each of the two MoE layers adds at least its weight, which is what an even load costs."""
    assert train(stage=replace(STAGE, balance_loss=0.1)).losses[0] > plain.losses[0] + 0.19


def test_fewer_lines_of_log_hold_the_same_mean(train: Any, plain: Trained) -> None:
    trained = train(log_every=3, checkpoint_every=3)
    assert [row["step"] for row in trained.report["losses"]] == [1, 3, 4]
    assert trained.report["mean_loss"] == pytest.approx(plain.report["mean_loss"])


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    seen: set[torch.dtype] = set()
    original = MoE.forward

    def forward(self: MoE, x: torch.Tensor) -> torch.Tensor:
        seen.add(self.gate(x.reshape(-1, x.shape[-1]))[0].dtype)
        seen.add(self.shared_expert.up_proj(x).dtype)  # type: ignore[union-attr, operator]
        return original(self, x)

    monkeypatch.setattr(MoE, "forward", forward)
    return seen


def test_in_bfloat16_gates_and_weights_stay_float32(train: Any, plain: Trained, dtypes: set[torch.dtype]) -> None:
    trained = train(precision="bfloat16")
    assert dtypes == {torch.float32, torch.bfloat16}
    assert {parameter.dtype for parameter in trained.model.parameters()} == {torch.float32}
    assert trained.report["precision"] == "bfloat16"
    assert trained.losses == pytest.approx(plain.losses, rel=0.05)
    assert trained.losses != plain.losses


def test_tensorboard_is_told_of_loss_speed_memory_and_every_expert(plain: Trained) -> None:
    log = EventAccumulator(str(plain.directory / "tensorboard")).Reload()
    tags = set(log.Tags()["scalars"])
    figures = ("loss", "learning_rate", "tokens_per_second", "answer_tokens_per_second", "samples_per_second")
    assert {f"train/{name}" for name in (*figures, "peak_memory_bytes")} <= tags
    for layer in (0, 2):
        shares = [log.Scalars(f"train/layer_{layer}/expert_{expert}")[-1].value for expert in range(4)]
        assert sum(shares) == pytest.approx(1)
        assert 0 <= log.Scalars(f"train/layer_{layer}/entropy")[-1].value <= 1.4
    assert log.Scalars("train/epoch")[-1].value == pytest.approx(2)


def test_a_stage_that_was_killed_before_it_was_saved_takes_no_further_step(train: Any, plain: Trained) -> None:
    again = train(directory=plain.directory)
    assert again.losses == plain.losses
    first, second = plain.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_continued_stage_logs_and_saves_as_often_as_it_is_told_now(
    train: Any, plain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    original = StepCheckpoints.publish
    monkeypatch.setattr(
        StepCheckpoints, "publish", lambda checkpoints, step: (saved.append(step), original(checkpoints, step))
    )
    shutil.copytree(plain.directory / "checkpoint-4", tmp_path / "checkpoint-4")
    again = train(directory=tmp_path, stage=replace(STAGE, epochs=6), log_every=3, checkpoint_every=9)
    assert [row["step"] for row in again.report["losses"]] == [1, 2, 3, 4, 6, 9, 12]
    assert saved == [9, 12]


def test_a_step_checkpoint_holds_what_is_trained_and_no_pickled_code(plain: Trained) -> None:
    files = {path.name for path in (plain.directory / "checkpoint-4").iterdir()}
    assert files == {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    weights = load_file(plain.directory / "checkpoint-4" / "model.safetensors")
    assert not [name for name in weights if "vision_tower" in name]
    assert "model.projector.linear_1.weight" in weights


class Malice:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("malice"),))


def _cut(place: Path) -> None:
    path = place / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:100])


def _misfit(place: Path) -> None:
    weights = load_file(place / "model.safetensors")
    weights["model.projector.linear_1.bias"] = torch.zeros(3)
    save_file(weights, place / "model.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _misfit,
        lambda place: (place / "scheduler.pt").unlink(),
        lambda place: (place / "model.safetensors").write_bytes(b"no tensors"),
        lambda place: save_file({"other": torch.zeros(1)}, place / "model.safetensors"),
        lambda place: (place / "trainer_state.json").write_text("{"),
        lambda place: (place / "rng_state.pth").write_bytes(pickle.dumps(Malice())),
        lambda place: (place / "optimizer.pt").write_bytes(pickle.dumps(Malice())),
    ],
)
def test_a_damaged_step_checkpoint_is_named_and_its_code_never_run(
    train: Any, plain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "checkpoint-4"
    shutil.copytree(plain.directory / "checkpoint-4", place)
    damage(place)
    with pytest.raises(TrainingError, match=r"checkpoint-4 cannot be continued from: remove it"):
        train(directory=tmp_path, stage=replace(STAGE, epochs=3))
    assert not (tmp_path / "malice").exists()


def test_a_loss_that_is_no_number_ends_the_stage(train: Any) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d; lower the learning rate"):
        train(stage=replace(STAGE, learning_rate=1e30, max_grad_norm=1e30, epochs=10))


@pytest.mark.parametrize(
    ("stage", "runtime", "message"),
    [
        ({"batch_size": 7}, {"accumulate": 2}, "batch of 7 cannot be divided"),
        ({"trainable": (r"mm_projector\.",)}, {}, "'mm_projector.+ matches no parameter"),
        ({"trainable": ()}, {}, "nothing is trainable"),
        ({"trainable": (r".*\.embed_tokens",), "optimizer": "muon"}, {}, "hidden matrices, and none is trainable"),
        ({"dropout": 1.0}, {}, "dropout of 1.0"),
        ({"epochs": 0}, {}, "above 0"),
        ({"epochs": float("inf")}, {}, "epochs of inf"),
        ({"learning_rate": -1e-3}, {}, "learning_rate of -0.001"),
        ({"weight_decay": float("nan")}, {}, "weight_decay of nan"),
        ({"warmup_ratio": 5.0}, {}, "warmup_ratio of 5.0; choose a share of the steps"),
        ({"trainable": (r".*",)}, {}, r"'\.\*' matches the vision tower"),
    ],
)
def test_settings_that_do_not_fit_are_found_before_the_first_step(
    train: Any, tmp_path: Path, stage: dict[str, Any], runtime: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(stage=replace(STAGE, **stage), directory=tmp_path / "stage", **runtime)
    assert not (tmp_path / "stage").exists()


def test_data_that_do_not_fit_are_found_before_the_first_step(train: Any, tmp_path: Path) -> None:
    long = replace(SAMPLES[0], id="long", answer="CT " * 600)
    with pytest.raises(DataError, match="sample long of d has"):
        train(samples=[*SAMPLES, long], directory=tmp_path / "stage")
    with pytest.raises(DataError, match="no samples"):
        train(samples=[], directory=tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_a_directory_that_cannot_be_written_is_found_before_the_first_step(train: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        train(directory=tmp_path / "file" / "stage")
