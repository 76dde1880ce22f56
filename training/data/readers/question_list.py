"""Read plain question lists: `{"image", "question", "answer"}`, the fields of PathVQA and of the Hub's editions.

`image_name` and `img_name` are `image` too, as in copies of VQA-RAD and SLAKE that lack other fields of these.

PathVQA (He et al. 2020, arXiv 2003.10286) is published as pickles, and the Hub's editions of PathVQA and VQA-RAD as
parquet. Unpickling runs whatever a file says, and parquet needs a package many times this project's size: both are
refused (`detection`), and what people export from them is read here, a JSON list or one JSON object a line.
"""

import hashlib
from collections import Counter
from pathlib import Path

from medmoe.training.config import Split
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.image_path import find_image
from medmoe.training.data.readers.json_items import read_each, read_json_items
from medmoe.training.data.readers.record_fields import (
    Record,
    answer_type_of,
    optional_text,
    text,
    text_or_number,
    upstream_answer_type,
)
from medmoe.training.data.sample import Sample

IDS = ("id", "qid", "question_id")
IMAGE_FIELDS = ("image", "image_name", "img_name")


def read_question_list(file: Path, *, split: Split, directory: Path) -> ReadResult:
    """Return the samples of one split's `file`, which belongs to the dataset folder `directory`.

    Ids are `FOLDER/SPLIT/ID` with ID from `id`, `qid` or `question_id`. PathVQA has none of them: then ID is a hash of
    image name, question and answer, the same in whatever order the items stand; items that repeat another one
    altogether stay, so that official counts hold, with `-2`, `-3` after the hash.

    An image name may lack its ending and is looked for in the folder, its `images/` and `images/SPLIT/`. Without an
    `answer_type`, answers yes and no are closed and all others open: PathVQA's own rule, not VQA-RAD's.
    Raises DatasetError when the file cannot be used.
    """
    dataset = directory.absolute().name
    directories = tuple(path for path in (directory, *_image_folders(directory, split=split)) if path.is_dir())
    copies: Counter[str] = Counter()

    def build(record: Record) -> Sample:
        named = next((field for field in IMAGE_FIELDS if field in record), "image")
        name, question, answer = text(record, named), text(record, "question"), text_or_number(record, "answer")
        number = next((text_or_number(record, field) for field in IDS if record.get(field) is not None), None)
        image = find_image(name, directories=directories)
        answer_type = upstream_answer_type(record) or answer_type_of(answer)
        modality, question_type = optional_text(record, "modality"), optional_text(record, "question_type")
        # Everything is checked by now: a broken item must not count as the first of two.
        if number is None:
            number = hashlib.sha256("\0".join((name, question, answer)).encode()).hexdigest()[:16]
            copies[number] += 1
            if copies[number] > 1:
                number = f"{number}-{copies[number]}"
        return Sample(
            id=f"{dataset}/{split}/{number}",
            dataset=dataset,
            image=image,
            split=split,
            question=question,
            answer=answer,
            modality=modality,
            answer_type=answer_type,
            question_type=question_type,
        )

    return read_each(read_json_items(file), file=file.name, build=build)


def _image_folders(directory: Path, *, split: Split) -> tuple[Path, ...]:
    images = next((path for name in ("images", "imgs") if (path := directory / name).is_dir()), directory / "images")
    return (images, images / split, images / "validation") if split == "val" else (images, images / split)
