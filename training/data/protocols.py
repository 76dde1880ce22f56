"""Compare a dataset with the published protocol: how many questions each split of it has.

SLAKE's English part: Liu et al. 2021, arXiv 2102.09542. VQA-RAD: Lau et al. 2018; 1,793 training questions are those
without repeats, 3,064 those with the other wordings. PathVQA: He et al. 2020, arXiv 2003.10286; the smaller counts are
the Hub's edition without repeats.
"""

import re
from collections.abc import Mapping

from medmoe.training.config import Split
from medmoe.training.data.detection import Detected, Form

Counts = Mapping[Split, tuple[int, ...]]

_SLAKE: Counts = {"train": (4919,), "val": (1053,), "test": (1061,)}
_VQA_RAD: Counts = {"train": (1797, 1793, 3064), "test": (451,)}
_PATH_VQA: Counts = {"train": (19755, 19654), "val": (6279, 6259), "test": (6761, 6719)}
_BY_NAME: tuple[tuple[re.Pattern[str], Counts], ...] = (
    (re.compile(r"(data)?slake(vqa)?(10)?(en(glish)?)?"), _SLAKE),
    (re.compile(r"(data)?(vqarad|radvqa)|datarad"), _VQA_RAD),
    (re.compile(r"(data)?(pathvqa|pvqa)|datapath"), _PATH_VQA),
)
"""Whole names of folders in lower case, letters and digits alone: `slake_ct_organs` is another dataset."""


def published_counts(found: Detected) -> Counts | None:
    """Return the published numbers of questions by split, None for a dataset without a known protocol."""
    if found.form is Form.SLAKE:
        return _SLAKE
    if found.form is Form.VQA_RAD:
        return _VQA_RAD
    if found.form not in (Form.QUESTIONS, Form.LLAVA, Form.RECORDS):
        return None
    name = "".join(letter for letter in found.directory.absolute().name.lower() if letter.isalnum())
    return next((counts for pattern, counts in _BY_NAME if pattern.fullmatch(name)), None)


def against_protocol(found: Detected, split: Split, *, samples: int) -> str | None:
    """Return a line that compares `samples` with the published number; None where there is none."""
    published = (published_counts(found) or {}).get(split)
    if published is None:
        return None
    wanted = " or ".join(f"{count:,}" for count in published)
    if samples in published:
        return f"{samples:,} questions, as published"
    nearest = min(published, key=lambda count: abs(count - samples))
    difference = samples - nearest
    return (
        f"{samples:,} questions, {abs(difference):,} {'more' if difference > 0 else 'fewer'} than published ({wanted})"
    )
