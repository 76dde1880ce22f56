"""The experiment on forgetting: what its gates are measured on, and which change of the data ends it."""

import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.evaluation_data import DataFile, EvaluationData
from medmoe.training.forgetting.gates import gate_samples


def test_gates_are_measured_on_every_class_of_a_sorted_dataset() -> None:
    samples = [
        Sample(
            id=f"{dataset}/{number}",
            dataset=dataset,
            image=Path(f"/{number}.png"),
            split="test",
            answer="CT" if number < 100 else "MRI",
            labels=("CT", "MRI"),
        )
        for dataset, count in (("sorted", 200), ("small", 10))
        for number in range(count)
    ]
    chosen = gate_samples(samples)
    found = Counter((sample.dataset, sample.answer) for sample in chosen)
    assert found["sorted", "CT"] + found["sorted", "MRI"] == 64
    assert min(found["sorted", "CT"], found["sorted", "MRI"]) > 20
    assert found["small", "CT"] == 10
    assert gate_samples(samples) == chosen


def test_a_changed_label_folder_is_another_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for number, name in enumerate(("train/CT/0", "train/CT/1", "train/MRI/2", "test/CT/3", "test/MRI/4")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(folder / f"{name}.png")

    def read() -> tuple[DataFile, ...]:
        return EvaluationData.read(tmp_path, ["own"]).files

    before = read()
    assert read() == before
    shutil.move(folder / "train" / "CT" / "1.png", folder / "train" / "MRI" / "1.png")
    moved = read()
    Image.new("L", (8, 8), 255).save(folder / "train" / "MRI" / "1.png")
    assert len({before, moved, read()}) == 3
