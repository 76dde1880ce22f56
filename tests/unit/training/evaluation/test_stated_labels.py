"""Images of only some labels are asked about among all that are stated."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from medmoe.model.files.calibration import Calibration
from medmoe.training.evaluation.__main__ import app
from medmoe.training.evaluation.calibration.calibrate import app as calibrate_app
from tests.support.checkpoints.tiny import save_tiny_checkpoint

ALL = ["CT", "MRI", "X-ray"]
STATED = [argument for label in ALL for argument in ("--label", label)]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with prediction sets for three labels, and a folder of data."""
    root = tmp_path_factory.mktemp("stated")
    checkpoint = save_tiny_checkpoint(root / "tiny")
    for number in range(60):
        folder = root / "data" / "all" / ALL[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 24), 4 * number).save(folder / f"{number}.png")
    found = CliRunner().invoke(
        calibrate_app, [str(checkpoint), "--data", str(root / "data"), "--dataset", "all", "--conformal"]
    )
    assert found.exit_code == 0, found.output
    return checkpoint, root / "data"


def some(data: Path, *labels: str, table: bool) -> str:
    """Write images of `labels` alone; return the name of the dataset."""
    name = "some.csv" if table else "some"
    shutil.rmtree(data / "some", ignore_errors=True)
    for label in labels:
        shutil.copytree(data / "all" / label, data / "some" / label)
    if table:
        rows = [f"some/{label}/{path.name},{label}" for label in labels for path in (data / "some" / label).iterdir()]
        (data / name).write_text("\n".join(["image,label", *rows]))
    return name


@pytest.fixture
def evaluate(calibrated: tuple[Path, Path]) -> Callable[..., Result]:
    checkpoint, data = calibrated

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [str(checkpoint), "--data", str(data), *arguments])

    return run


@pytest.mark.parametrize("table", [False, True])
def test_the_stated_labels_are_the_choice(
    calibrated: tuple[Path, Path], evaluate: Callable[..., Result], table: bool
) -> None:
    _, data = calibrated
    name = some(data, "CT", "MRI", table=table)
    easier = evaluate("--dataset", name)
    assert easier.exit_code == 0, easier.output
    assert "2 labels to choose among" in easier.stdout
    assert "the choice is among CT, MRI alone, and the checkpoint is calibrated for CT, MRI, X-ray" in easier.stderr
    assert "prediction sets of" not in easier.stdout
    asked = evaluate("--dataset", name, *STATED)
    assert asked.exit_code == 0, asked.output
    assert "3 labels to choose among" in asked.stdout
    assert "warning" not in asked.stderr
    assert "of 3 |" in asked.stdout


def test_images_of_one_label_can_be_measured(calibrated: tuple[Path, Path], evaluate: Callable[..., Result]) -> None:
    name = some(calibrated[1], "MRI", table=False)
    assert "one label alone, MRI" in evaluate("--dataset", name).output
    found = evaluate("--dataset", name, *STATED)
    assert found.exit_code == 0, found.output
    assert "| some | model | 20 |" in found.stdout


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (["CT", "X-ray"], "hold labels that are not among those stated: MRI"),
        (["CT", "mri"], "spell a label in two ways, 'MRI' and 'mri'"),
    ],
)
def test_other_labels_than_those_of_the_images_are_refused(
    calibrated: tuple[Path, Path], evaluate: Callable[..., Result], stated: list[str], reason: str
) -> None:
    name = some(calibrated[1], "CT", "MRI", table=False)
    found = evaluate("--dataset", name, *(argument for label in stated for argument in ("--label", label)))
    assert found.exit_code == 1
    assert reason in found.output


def test_data_that_state_their_labels_or_have_none_are_refused(
    calibrated: tuple[Path, Path], evaluate: Callable[..., Result]
) -> None:
    data = calibrated[1]
    (data / "asked.csv").write_text("image,question,answer\nall/CT/0.png,What?,CT\n")
    found = evaluate("--dataset", "asked.csv", *STATED)
    assert (found.exit_code, "asked.csv has no image with a label" in found.output) == (1, True)
    (data / "records").mkdir()
    (data / "records" / "records.jsonl").write_text("")
    found = evaluate("--dataset", "records", *STATED)
    assert (found.exit_code, "states its labels itself" in found.output) == (1, True)


def test_a_calibration_is_of_the_stated_labels(calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, data = calibrated
    copy = Path(shutil.copytree(checkpoint, tmp_path / "tiny"))
    name = some(data, "CT", "MRI", table=False)
    arguments = [str(copy), "--data", str(data), "--dataset", name, "--conformal", *STATED]
    assert CliRunner().invoke(calibrate_app, arguments).exit_code == 0
    made = Calibration.model_validate_json((copy / "calibration.json").read_bytes())
    assert made.known_label_sets == {tuple(ALL)}
