"""What `finetune` understands of a folder, a CSV and JSON lines, and how it divides them."""

import json
import os
import re
from pathlib import Path
from textwrap import dedent
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medmoe.model.image_formats.signature import rendered_name
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DataError, DatasetError
from medmoe.training.finetune.__main__ import app
from medmoe.training.finetune.data import read_own_data
from medmoe.training.finetune.run import Finetune
from medmoe.training.finetune.split import OwnSplit, split_own_data


def draw(path: Path, *, seed: int, shift: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 250, (16, 16, 3)) + shift
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def two_labels(directory: Path, *, each: int = 10) -> Path:
    for number in range(each):
        draw(directory / "normal" / f"{number}.png", seed=number)
        draw(directory / "mass" / f"{number}.png", seed=1000 + number)
    return directory


def read(path: Path, *, group: str | None = None) -> OwnSplit:
    return split_own_data(read_own_data(path, group=group))


def test_the_python_of_the_readme_finetunes_on_the_data_that_it_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[4] / "training" / "README.md").read_text()
    (code,) = re.findall(r"^From Python:\n\n((?:(?:    .*)?\n)+)", readme, re.MULTILINE)
    two_labels(tmp_path / "my_images")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Finetune, "__call__", lambda run, split: f"{len(split.samples)} samples, {run.output}")
    exec(dedent(code), {})
    assert capsys.readouterr().out == "20 samples, my_model\n"


def test_a_folder_for_each_label_is_divided_with_every_label_in_every_split(tmp_path: Path) -> None:
    split = read(two_labels(tmp_path / "own"))
    assert len(split.samples) == 20
    for part in (split.train, split.val, split.test):
        assert {sample.answer for sample in part} == {"mass", "normal"}
    assert all(sample.labels == ("mass", "normal") for sample in split.samples)
    assert {sample.image for sample in split.train}.isdisjoint(sample.image for sample in split.test)


def test_images_of_linked_folders_belong_to_the_label_too(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    (tmp_path / "elsewhere").mkdir()
    draw(tmp_path / "elsewhere" / "more.png", seed=555)
    (own / "mass" / "ward").symlink_to(tmp_path / "elsewhere")
    added = [sample for sample in read(own).samples if sample.image.name == "more.png"]
    assert [sample.answer for sample in added] == ["mass"]


def test_repeats_broken_files_and_contradictions_are_left_out_and_said(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    draw(own / "mass" / "again.png", seed=1000)
    draw(own / "mass" / "also normal.png", seed=0)
    (own / "mass" / "broken.png").write_bytes((own / "mass" / "1.png").read_bytes()[:100])
    (own / "mass" / "notes.txt").write_text("x")
    split = read(own)
    # Images that are left out are no near duplicates of others.
    assert (split.repeats, split.near_duplicates) == (1, 0)
    assert len(split.samples) == 19
    reasons = "\n".join(map(str, split.bad))
    assert "notes.txt" in reasons
    assert "broken.png" in reasons
    assert reasons.count("another label") == 2
    assert "left out: 1 repeats, 4 unusable" in split.table()


def test_every_file_that_is_no_image_of_a_label_is_named(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    draw(own / "stray.png", seed=7)
    (own / "mass" / "slice.dcm").write_bytes(b"x")
    (own / "mass" / "Thumbs.db").write_bytes(b"x")
    reasons = "\n".join(map(str, read(own).bad))
    assert "stray.png: lies in no label's folder" in reasons
    assert "`medmoe render" in reasons
    assert "Thumbs" not in reasons


def test_a_folder_without_usable_images_says_what_is_wrong_with_the_first(tmp_path: Path) -> None:
    for label in ("mass", "normal"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "slice.dcm").write_bytes(b"x")
    with pytest.raises(DataError, match=r"2 cannot be used, the first .*slice.dcm.* `medmoe render"):
        read(tmp_path)


def test_labels_of_folders_from_a_mac_are_composed(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    (own / "mass").rename(own / normalize("NFD", "große Höhle"))
    assert {sample.answer for sample in read(own).samples} == {"normal", "große Höhle"}
    spelt = [normalize(form, "große Höhle") for form in ("NFC", "NFD")]
    rows = [f"normal/{n}.png,normal\n" for n in range(10)] + [f"{spelt[1]}/{n}.png,{spelt[n % 2]}\n" for n in range(10)]
    (own / "own.csv").write_text("image,label\n" + "".join(rows))
    labels = [sample.answer for sample in read(own / "own.csv").samples]
    assert (labels.count("normal"), labels.count(spelt[0])) == (10, 10)


def test_near_duplicates_share_a_split(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    for number in range(10):
        draw(own / "mass" / f"near {number}.png", seed=1000 + number, shift=2)
    split = read(own)
    assert split.near_duplicates == 10
    where = {sample.image.name: sample.split for sample in split.samples if sample.answer == "mass"}
    assert all(where[f"{number}.png"] == where[f"near {number}.png"] for number in range(10))


@pytest.mark.parametrize("column", ["patient", "PatientID", "Patient ID"])
def test_the_images_of_a_patient_share_a_split(tmp_path: Path, column: str) -> None:
    two_labels(tmp_path)
    rows = [f"{label}/{n}.png,{label},{n // 2}" for label in ("normal", "mass") for n in range(10)]
    (tmp_path / "own.csv").write_text(f"image,label,{column}\n" + "\n".join(rows))
    split = read(tmp_path / "own.csv")
    assert f"grouped by {column.lower()}" in split.form
    where: dict[int, set[str]] = {}
    for sample in split.samples:
        where.setdefault(int(sample.image.stem) // 2, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in where.values())


@pytest.mark.parametrize("seed", range(6))
def test_a_patient_with_most_of_the_images_stays_in_training(tmp_path: Path, seed: int) -> None:
    rows = [f"{label}/{n}.png,{label},{0 if n < 14 else n}\n" for label in ("normal", "mass") for n in range(20)]
    for label, first in (("normal", 300), ("mass", 2000)):
        for n in range(10, 20):
            draw(tmp_path / label / f"{n}.png", seed=first + n)
    file = own_csv(tmp_path, "".join(rows), columns="image,label,patient")
    split = split_own_data(read_own_data(file), seed=seed)
    assert len([sample for sample in split.train if int(sample.image.stem) < 14]) == 28
    assert min(len(split.val), len(split.test)) >= 2
    assert {sample.answer for sample in split.val} == {sample.answer for sample in split.test} == {"normal", "mass"}


def test_three_patients_are_one_for_each_split(tmp_path: Path) -> None:
    rows = [f"{label}/{n}.png,{label},{n % 3}\n" for label in ("normal", "mass") for n in range(9)]
    split = read(own_csv(tmp_path, "".join(rows), columns="image,label,patient"))
    assert len(split.train) == len(split.val) == len(split.test) == 6


def test_an_image_of_two_patients_is_named(tmp_path: Path) -> None:
    rows = [
        f"{label}/{n}.png,Q{q}?,x,{n + q * (n == 3)}\n"
        for label in ("normal", "mass")
        for n in range(10)
        for q in (0, 1)
    ]
    found = read_own_data(own_csv(tmp_path, "".join(rows), columns="image,question,answer,patient"))
    assert [item.reason for item in found.bad] == ["patient is another one than in an earlier row about the image"] * 2


def test_a_csv_may_name_the_dicom_files_that_were_rendered(tmp_path: Path) -> None:
    two_labels(tmp_path)
    rows = [f"{label}/{n}{'.dcm' if n % 2 else ''},{label}" for label in ("normal", "mass") for n in range(10)]
    (tmp_path / "own.csv").write_text("image,label\n" + "\n".join(rows))
    assert len(read(tmp_path / "own.csv").samples) == 20


@pytest.mark.parametrize("beside", [True, False], ids=["beside the DICOM files", "alone"])
@pytest.mark.parametrize("where", ["{}", "images/{}", "../own/{}", "{folder}/{}", "{folder}\\{}"])
@pytest.mark.parametrize("name", ["IM{}", "1.2.840.{}", "IM{}.dcm", "IM{}.IMA"])
def test_a_csv_finds_the_png_that_was_rendered_of_a_dicom_file_however_it_is_named(
    tmp_path: Path, name: str, where: str, beside: bool
) -> None:
    own = tmp_path / "own"
    images = own / "images" if where in ("{}", "images/{}") else own
    images.mkdir(parents=True)
    rows, expected = [], set()
    for n in range(20):
        dicom = images / name.format(n)
        if beside:
            dicom.write_bytes(bytes(128) + b"DICM")
        expected.add(draw(images / rendered_name(dicom.name), seed=n))
        rows.append(f"{where.format(dicom.name, folder=own if '/' in where else '.')},{'normal' if n % 2 else 'mass'}")
    (own / "own.csv").write_text("image,label\n" + "\n".join(rows))
    found = read(own / "own.csv")
    assert {sample.image.resolve() for sample in found.samples} == {path.resolve() for path in expected}, found.bad


def test_a_name_without_an_ending_that_fits_several_images_is_refused(tmp_path: Path) -> None:
    own = two_labels(tmp_path)
    draw(own / "mass" / "0.jpg", seed=50)
    rows = [f"{label}/{n},{label}" for label in ("normal", "mass") for n in range(10)]
    (tmp_path / "own.csv").write_text("image,label\n" + "\n".join(rows))
    found = read(tmp_path / "own.csv")
    assert len(found.samples) == 19
    assert "several" in str(found.bad[0])


@pytest.mark.parametrize("start", [bytes(128) + b"DICM", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"])
def test_dicom_files_that_were_not_rendered_are_named_with_the_way_out(tmp_path: Path, start: bytes) -> None:
    for label in ("normal", "mass"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.2.3").write_bytes(start.ljust(200, b"\0"))
    with pytest.raises(DataError, match="medmoe render"):
        read(tmp_path)
    (tmp_path / "own.csv").write_text("image,label\nnormal/1.2.3,normal\nmass/1.2.3,mass")
    with pytest.raises(DataError, match="medmoe render"):
        read(tmp_path / "own.csv")


def test_questions_of_a_csv_keep_an_image_in_one_split_and_get_answer_types(tmp_path: Path) -> None:
    two_labels(tmp_path)
    rows = [
        row
        for n in range(10)
        for row in (
            f"normal/{n}.png;Is there a mass?;no",
            f"normal/{n}.png;What is it?;the chest",
            "gone.png;Why?;so",
        )
    ]
    (tmp_path / "own.csv").write_text("Image;Question;Answer\n" + "\n".join(rows))
    split = read(tmp_path / "own.csv")
    assert {(s.answer, s.answer_type) for s in split.samples} == {("no", "closed"), ("the chest", "open")}
    assert len(split.bad) == 10
    assert {s.image for s in split.train}.isdisjoint(s.image for s in split.val + split.test)


def test_json_lines_may_state_their_split(tmp_path: Path) -> None:
    two_labels(tmp_path)
    records = [
        {"image": f"{label}/{n}.png", "label": label, "split": "test" if n < 3 else "train"}
        for label in ("normal", "mass")
        for n in range(10)
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, records)))
    split = read(tmp_path / "own.jsonl")
    assert {int(sample.image.stem) for sample in split.test} == {0, 1, 2}


def test_samples_of_two_splits_that_count_their_ids_anew_have_ids_of_their_own(tmp_path: Path) -> None:
    two_labels(tmp_path / "images")
    for split, label in (("train", "normal"), ("test", "mass")):
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": label}]
        items = [{"id": n, "image": f"{label}/{n}.png", "conversations": turns} for n in range(10)]
        (tmp_path / f"{split}.json").write_text(json.dumps(items))
    samples = read_own_data(tmp_path).samples
    assert len({sample.id for sample in samples}) == len(samples) == 20


def test_folders_of_splits_are_no_labels(tmp_path: Path) -> None:
    two_labels(tmp_path / "own" / "train")
    for label, seed in (("normal", 50), ("mass", 1050)):
        draw(tmp_path / "own" / "test" / label / "a.png", seed=seed)
    split = read(tmp_path / "own")
    assert {sample.answer for sample in split.samples} == {"normal", "mass"}
    assert len(split.test) == 2


@pytest.mark.parametrize("names", [("train", "notes"), ("test", "control")])
def test_folders_beside_those_of_splits_are_named(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        two_labels(tmp_path / name, each=2)
    with pytest.raises(DatasetError, match=f"folders of splits beside {names[1]}: .* move the others away"):
        read_own_data(tmp_path)


def test_few_images_are_warned_of(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    draw(own / "cyst" / "0.png", seed=5000)
    warnings = " ".join(read(own).warnings())
    assert "21 images are few" in warnings
    assert "no test image is left for cyst" in warnings
    assert "fewer than 5 training images of cyst:" in warnings


@pytest.mark.parametrize(
    ("columns", "message"),
    [("file,label", "needs the columns image and label"), ("image,label", "no column ward")],
)
def test_a_csv_with_other_columns_is_refused_by_them(tmp_path: Path, columns: str, message: str) -> None:
    (tmp_path / "own.csv").write_text(f"{columns}\na.png,x\n")
    with pytest.raises(DatasetError, match=message):
        read_own_data(tmp_path / "own.csv", group="ward")


def own_csv(directory: Path, rows: str, *, columns: str = "image,label") -> Path:
    file = two_labels(directory) / "own.csv"
    file.write_text(f"{columns}\n{rows}", newline="")
    return file


def test_a_row_with_more_cells_than_columns_is_left_out_and_not_cut(tmp_path: Path) -> None:
    rows = [f"normal/{n}.png,normal,\n" for n in range(10)] + [f'mass/{n}.png,"mass, left"\n' for n in range(9)]
    read_rows = read(own_csv(tmp_path, "".join([*rows, "mass/9.png,mass, right\n"])))
    assert {sample.answer for sample in read_rows.samples} == {"normal", "mass, left"}
    assert [(item.place, item.reason.split(";")[0]) for item in read_rows.bad] == [(21, "more cells than columns")]


def test_rows_that_cannot_be_read_explain_that_one_label_is_left(tmp_path: Path) -> None:
    rows = [f"normal/{n}.png,normal\nmass/{n}.png,mass, left\n" for n in range(10)]
    with pytest.raises(DatasetError, match=r"without line 3: more cells than columns.* one label alone, normal"):
        read_own_data(own_csv(tmp_path, "".join(rows)))


@pytest.mark.parametrize("columns", ["image,label,label", "image,Label, label "])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, columns: str) -> None:
    file = own_csv(tmp_path, "mass/0.png,mass,normal\n", columns=columns)
    with pytest.raises(DatasetError, match="names a column twice: label"):
        read_own_data(file)


@pytest.mark.parametrize("rows", ['mass/0.png,"mass\nmass/1.png,mass\n', 'mass/0.png,"mass" left\nmass/1.png,mass\n'])
def test_a_quotation_mark_that_is_not_closed_does_not_swallow_rows(tmp_path: Path, rows: str) -> None:
    with pytest.raises(DatasetError, match=r"own.csv cannot be read as a table at line \d: .* quotation mark"):
        read_own_data(own_csv(tmp_path, rows))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x0b", "\x85"])
def test_line_ends_within_cells_stay_what_they_are(tmp_path: Path, end: str) -> None:
    rows = "".join(f'normal/{n}.png,"What{end}is it?",the lung\r\n' for n in range(10))
    found = read(own_csv(tmp_path, rows, columns="image,question,answer"))
    assert {(sample.question, sample.answer) for sample in found.samples} == {(f"What{end}is it?", "the lung")}
    assert not found.bad


@pytest.mark.parametrize(
    ("labels", "expected"), [((0, 1), {"0", "1"}), ((0.0, 2.0), {"0", "2"}), ((0, "1"), {"0", "1"})]
)
def test_labels_of_json_lines_may_be_numbers(tmp_path: Path, labels: tuple[object, object], expected: set[str]) -> None:
    two_labels(tmp_path)
    records = [
        {"Image": f"{folder}/{n}.png", "LABEL": label, "Question": None, "Ward": n // 2}
        for folder, label in zip(("normal", "mass"), labels, strict=True)
        for n in range(10)
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = read(tmp_path / "own.jsonl", group="Ward")
    assert len(found.samples) == 20
    assert {sample.answer for sample in found.samples} == expected == set(found.samples[0].labels)


def test_a_patient_is_one_whatever_blanks_stand_around_the_name(tmp_path: Path) -> None:
    rows = [f"{label}/{n}.png,{label},{' ' * (n % 2)}{n // 2}\n" for label in ("normal", "mass") for n in range(10)]
    found = read_own_data(own_csv(tmp_path, "".join(rows), columns="image,label,patient"))
    assert {sample.group for sample in found.samples} == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize("other", ["Left mass", "left  mass", "left \uff4dass"])
def test_two_spellings_of_a_label_are_refused(tmp_path: Path, other: str) -> None:
    rows = [f"normal/{n}.png,normal\nmass/{n}.png,{'left mass' if n else other}\n" for n in range(10)]
    with pytest.raises(DatasetError, match="spell a label in two ways"):
        read_own_data(own_csv(tmp_path / "table", "".join(rows)))
    own = two_labels(tmp_path / "own")
    (own / "mass").rename(own / "left mass")
    draw(own / other / "a.png", seed=5)
    with pytest.raises(DatasetError, match="spell a label in two ways"):
        read_own_data(own)


def test_images_in_hidden_folders_belong_to_no_label(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    for number, folder in enumerate((".thumbnails", "__MACOSX", "ward/.ipynb_checkpoints", "@eaDir", "../@eaDir")):
        draw(own / "mass" / folder / "a.png", seed=70 + number)
    found = read(own)
    assert len(found.samples) == 20
    assert not found.bad
    assert {label for sample in found.samples for label in sample.labels} == {"mass", "normal"}


def test_a_label_without_files_is_named(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    (own / "cyst").mkdir()
    assert "cyst: is a folder without files" in read(own).table()


def test_folders_below_those_of_labels_are_warned_of_because_they_may_be_patients(tmp_path: Path) -> None:
    for label in ("normal", "mass"):
        for number in range(10):
            draw(tmp_path / label / f"patient {number // 2}" / f"{number}.png", seed=len(label) * 100 + number)
    (warning,) = (text for text in read(tmp_path).warnings() if "patient" in text)
    assert warning.startswith("the images of 10 folders below those of the labels are divided one by one")
    stated = tmp_path / "stated"
    for split in ("train", "val", "test"):
        for seed, label in enumerate(("normal", "mass")):
            for patient in ("1", "2"):
                draw(stated / split / label / patient / "a.png", seed=len(split) * 100 + 10 * int(patient) + seed)
    assert not any("patient" in text for text in read(stated).warnings())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("labels.xlsx", "is a spreadsheet that is not read; save it as CSV"),
        ("Images.ZIP", "is an archive; unpack it"),
        ("one.png", "is a file in no form that is read"),
    ],
)
def test_a_file_in_another_form_is_refused_by_what_it_is(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4")
    with pytest.raises(DatasetError, match=f"{name} {reason}.*; give a folder for each label"):
        read_own_data(tmp_path / name)
    with pytest.raises(DatasetError, match=f"{name} {reason}"):
        read_dataset(tmp_path / name, split="test")


def test_one_label_and_no_images_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "one" / "normal" / "a.png", seed=0)
    with pytest.raises(DatasetError, match="one label alone"):
        read_own_data(tmp_path / "one")
    with pytest.raises(DatasetError, match="does not exist"):
        read_own_data(tmp_path / "missing")
    two_labels(tmp_path / "few", each=1)
    with pytest.raises(DataError, match="too few usable images"):
        read(tmp_path / "few")


def test_labels_of_which_the_usable_images_leave_one_are_refused(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    for image in (own / "mass").iterdir():
        image.write_bytes(b"x")
    with pytest.raises(DataError, match=r"one label alone, normal.*10 cannot be used, the first"):
        read(own)


def test_rows_that_are_empty_in_a_spreadsheet_are_no_rows(tmp_path: Path) -> None:
    rows = [f"{label}/{n}.png,{label}\n" for label in ("normal", "mass") for n in range(10)]
    found = read(own_csv(tmp_path, "".join([*rows, ",\n", " , \n", ",,,\n"])))
    assert len(found.samples) == 20
    assert not found.bad


def test_json_lines_state_their_splits_also_where_the_first_is_null(tmp_path: Path) -> None:
    two_labels(tmp_path)
    records = [
        {"image": f"{label}/{n}.png", "label": label, "split": {0: None, 1: "test"}.get(n, "train")}
        for n in range(10)
        for label in ("normal", "mass")
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, records)))
    tested = read_dataset(tmp_path / "own.jsonl", split="test").samples
    assert {int(sample.image.stem) for sample in tested} == {1}


def test_names_that_are_no_text_are_named(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    (own / "mass" / "0.png").rename(own / "mass" / os.fsdecode(b"0\xf6.png"))
    found = read(own)
    assert len(found.samples) == 19
    assert r"0\udcf6.png: its name is not UTF-8 text; rename it" in found.table()
    (own / "mass").rename(own / os.fsdecode(b"Gr\xf6sse"))
    with pytest.raises(DatasetError, match="has a name that is not UTF-8 text, as a label must be"):
        read_own_data(own)


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own", each=6)
    (own / "mass").rename(own / "ma\x1b[31mss")
    (own / "normal" / "a\nb.png").write_bytes(b"x")
    found = CliRunner().invoke(app, [str(own), "--output", str(tmp_path / "tuned"), "--check"])
    assert found.exit_code == 0, found.output
    assert "\x1b" not in found.output
    assert r"a\nb.png: is not an image" in found.output
    assert r"training images of ma\x1b[31mss" in found.output


def test_an_image_that_two_patients_share_joins_them(tmp_path: Path) -> None:
    rows = [f"{label}/{n}.png,{label},{label}{n}\n" for label in ("normal", "mass") for n in range(10)]
    for n in range(10):
        draw(tmp_path / "normal" / f"again {n}.png", seed=n)
        draw(tmp_path / "normal" / f"follow-up {n}.png", seed=500 + n)
        rows += [f"normal/{name} {n}.png,normal,other {n}\n" for name in ("again", "follow-up")]
    split = read(own_csv(tmp_path, "".join(rows), columns="image,label,patient"))
    assert split.repeats == 10
    where = {(sample.image.parent.name, sample.image.stem): sample.split for sample in split.samples}
    assert all(where["normal", str(n)] == where["normal", f"follow-up {n}"] for n in range(10))


def test_few_patients_in_the_test_split_are_warned_of(tmp_path: Path) -> None:
    rows = [f"{label}/{n}.png,{label},{n % 3}\n" for label in ("normal", "mass") for n in range(9)]
    split = read(own_csv(tmp_path, "".join(rows), columns="image,label,patient"))
    assert "groups of images: 1 in train, 1 in val, 1 in test" in split.table()
    assert "the number of groups in the test split is 1:" in " ".join(split.warnings())


def test_images_that_the_service_refuses_are_left_out_by_name(tmp_path: Path) -> None:
    own = two_labels(tmp_path / "own")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(own / "mass" / "moving.gif")
    Image.fromarray(noise).save(own / "mass" / "called.png", "GIF")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(own / "mass" / "black.png")
    found = read(own)
    assert len(found.samples) == 20
    table = found.table()
    assert "moving.gif: no image that is read: its name ends in .gif" in table
    assert "called.png: is not an image that can be read: it is none of PNG" in table
    assert "black.png: is of one shade, which the service refuses" in table
