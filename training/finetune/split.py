"""Divide own data into train, val and test: without unreadable images and repeats, and without dividing a group."""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from medmoe.model.files.terminal_safe import terminal_safe
from medmoe.model.image_formats.uniform import is_uniform
from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_rgb
from medmoe.training.data.leakage.image_digests import ImageDigests
from medmoe.training.data.leakage.near_duplicates import DisjointSets, Thumbnail, near_duplicates, thumbnail
from medmoe.training.data.read_result import BadItem
from medmoe.training.data.sample import Sample
from medmoe.training.finetune.data import OwnData

FEW_IMAGES = 50
_FEW_OF_A_LABEL = 5
_FEW_GROUPS = 5
_VAL, _TEST = 0.2, 0.2
_QUESTIONS = "questions"
_SHOWN = 10
_VIEWS, _FEW = 4, 300
"""Views of each training image where there are at most `_FEW` of them, else one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnSplit:
    """Hold the samples of each split and the account of everything else."""

    form: str
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    """Chooses the epoch and fits the calibration."""
    test: tuple[Sample, ...]
    """Measures the result; it has no part in training."""
    bad: tuple[BadItem, ...]
    repeats: int
    """Samples that equal an earlier one in image, question and answer; they are left out."""
    near_duplicates: int
    """Images that nearly equal an earlier one; they share its split."""
    folders_below_labels: int = 0
    """As in `OwnData`; 0 where the source states the splits."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.train + self.val + self.test

    @property
    def images(self) -> int:
        return len({sample.image for sample in self.samples})

    @property
    def _has_groups(self) -> bool:
        return len({sample.cluster for sample in self.samples}) < self.images

    def _group_counts(self) -> dict[Split, int]:
        parts: dict[Split, tuple[Sample, ...]] = {"train": self.train, "val": self.val, "test": self.test}
        return {split: len({sample.cluster for sample in part}) for split, part in parts.items()}

    def warnings(self) -> list[str]:
        """Return what the user should know before the training begins."""
        found = []
        if self.images < FEW_IMAGES:
            found.append(f"{self.images} images are few: below {FEW_IMAGES} the figures say little, collect more")
        tested = {sample.answer for sample in self.test if sample.kind == "classification"}
        labels = dict.fromkeys(label for sample in self.samples for label in sample.labels)
        learnt = Counter(sample.answer for sample in self.train if sample.kind == "classification")
        if rare := [label for label in labels if learnt[label] < _FEW_OF_A_LABEL]:
            found.append(f"fewer than {_FEW_OF_A_LABEL} training images of {', '.join(rare)}: hardly to be learnt")
        if self._has_groups and (count := self._group_counts()["test"]) < _FEW_GROUPS:
            found.append(f"the number of groups in the test split is {count}: the intervals say little")
        if self.folders_below_labels > 1:
            found.append(
                f"the images of {self.folders_below_labels} folders below those of the labels are divided one by one; "
                "if these folders are patients, give a CSV with the columns image, label and patient, or the scores "
                "will be too high"
            )
        if missing := [label for label in labels if label not in tested]:
            found.append(f"no test image is left for {', '.join(missing)}: each needs three that differ")
        return found

    def table(self) -> str:
        """Return the table of samples by label and split, then what was left out and why."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in self.samples:
            counts[_stratum(sample)][sample.split] += 1
        shown = {name: terminal_safe(name) for name in sorted(counts)}
        width = max(map(len, [*shown.values(), "label"]))
        lines = [f"read as: {self.form}", f"{'label':{width}} {'train':>7} {'val':>7} {'test':>7}"]
        for name, text in shown.items():
            found = counts[name]
            lines.append(f"{text:{width}} {found['train']:>7} {found['val']:>7} {found['test']:>7}")
        lines.append(
            f"images: {self.images}; near duplicates, kept in one split with their like: {self.near_duplicates}"
        )
        if self._has_groups:
            shown_counts = (f"{count} in {split}" for split, count in self._group_counts().items())
            lines.append(f"groups of images: {', '.join(shown_counts)}")
        lines.append(f"left out: {self.repeats} repeats, {len(self.bad)} unusable")
        lines += [f"  {item}" for item in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"  and {len(self.bad) - _SHOWN} more")
        return "\n".join(lines)


def split_own_data(data: OwnData, *, seed: int = 0) -> OwnSplit:
    """Decode every image once, remove what cannot be used, and divide the rest by groups of images.

    A split that the source states is kept. Raises DataError when nothing is left to train on or to measure, or when
    training has one label alone.
    """
    thumbnails, unreadable = _thumbnails(data.samples)
    bad = [*data.bad]
    bad += [
        BadItem(file=str(image.name), place=0, reason=reason, id=sample)
        for image, (sample, reason) in unreadable.items()
    ]
    readable = [sample for sample in data.samples if sample.image not in unreadable]
    sound, repeats, contradicting = _without_repeats(readable)
    bad += [
        BadItem(file=sample.image.name, place=0, reason="the same image has another label", id=sample.id)
        for sample in contradicting
    ]
    pairs = list(near_duplicates(thumbnails))
    named = {sample.image: sample.group for sample in data.samples if sample.group is not None}
    groups = _groups(thumbnails, pairs=pairs, named=named)
    divided = _divided(sound, groups=groups, seed=seed)
    divides = not {"val", "test"} <= {sample.split for sample in sound}
    by_split = {split: tuple(s for s in divided if s.split == split) for split in ("train", "val", "test")}
    images = {sample.image for sample in sound}
    reason = f"; {len(bad)} cannot be used, the first ({bad[0].file}) for: {bad[0].reason}" if bad else ""
    if empty := [split for split, found in by_split.items() if not found]:
        raise DataError(f"too few usable images ({len(images)}): none is left for {', '.join(empty)}{reason}")
    for labels in dict.fromkeys(sample.labels for sample in divided if sample.labels):
        learnt = {sample.answer for sample in by_split["train"] if sample.labels == labels}
        if len(learnt) == 1:
            raise DataError(
                f"training has usable images of one label alone, {learnt.pop()}; a classifier needs images of at "
                f"least two{reason}"
            )
    return OwnSplit(
        form=data.form,
        train=by_split["train"],
        val=by_split["val"],
        test=by_split["test"],
        bad=tuple(bad),
        repeats=repeats,
        folders_below_labels=data.folders_below_labels if divides else 0,
        near_duplicates=len({later for earlier, later in pairs if {earlier, later} <= images}),
    )


def _thumbnails(samples: Sequence[Sample]) -> tuple[dict[Path, Thumbnail], dict[Path, tuple[str, str]]]:
    """Return thumbnails by image, and the first sample and the reason by image that cannot be used."""
    owners = {sample.image: sample.id for sample in reversed(samples)}
    found: dict[Path, Thumbnail] = {}
    unreadable: dict[Path, tuple[str, str]] = {}
    with typer.progressbar(owners.items(), length=len(owners), label="reading images", file=sys.stderr) as bar:
        for image, owner in bar:
            try:
                shown = read_rgb(image)
                if is_uniform(shown):
                    raise DataError("is of one shade, which the service refuses")
                found[image] = thumbnail(shown)
            except DataError as error:
                unreadable[image] = (owner, str(error).removeprefix(f"{image} "))
    return found, unreadable


def _without_repeats(samples: Sequence[Sample]) -> tuple[list[Sample], int, list[Sample]]:
    """Return the samples to keep, the number of repeats, and the samples whose image has two labels."""
    digests = ImageDigests()
    answers: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for sample in samples:
        answers[digests.of_pixels(sample.image), sample.question, sample.labels].add(sample.answer)
    kept: dict[tuple[object, ...], Sample] = {}
    contradicting = []
    repeats = 0
    for sample in samples:
        asked = (digests.of_pixels(sample.image), sample.question, sample.labels)
        if sample.labels and len(answers[asked]) > 1:
            contradicting.append(sample)
        elif (*asked, sample.answer) in kept:
            repeats += 1
        else:
            kept[*asked, sample.answer] = sample
    return list(kept.values()), repeats, contradicting


def _groups(
    images: Iterable[Path], *, pairs: Iterable[tuple[Path, Path]], named: Mapping[Path, str]
) -> dict[Path, str]:
    """Return each image's group: what shares a value of the group column or is nearly the same belongs together."""
    sets = DisjointSets()
    for one, other in pairs:
        sets.join(one, other)
    for image, name in named.items():
        sets.join(name, image)
    return {image: str(sets.root(image)) for image in images}


def _divided(samples: Sequence[Sample], *, groups: dict[Path, str], seed: int) -> list[Sample]:
    """Give each sample its group and each group one split; groups of a label are drawn by `seed`, one stays in train.

    Groups that are larger than a split's share are drawn last, and the shares are of the others, unless these are few.
    """
    stated: dict[str, Split] = {groups[s.image]: s.split for s in samples if s.split != "train"}
    strata: dict[str, Counter[str]] = defaultdict(Counter)
    for group, names in _by_group(samples, groups).items():
        if group not in stated:
            strata[names.most_common(1)[0][0]][group] = names.total()
    shares: dict[Split, float] = {"test": _TEST, "val": _VAL}
    wanted = [(split, share) for split, share in shares.items() if split not in stated.values()]
    chosen: dict[str, Split] = dict(stated)
    for name, sizes in sorted(strata.items()):
        drawn = random.Random(f"{seed}/{name}").sample(sorted(sizes), len(sizes))
        total = sizes.total()
        most = max(1, round(max(_VAL, _TEST) * total))
        others = sum(size for size in sizes.values() if size <= most)
        if 2 * others >= most:
            drawn.sort(key=lambda group: sizes[group] <= most)
            total = others
        for split, share in wanted:
            taken = 0
            while len(drawn) > 1 and taken < max(1, round(share * total)):
                group = drawn.pop()
                chosen[group] = split
                taken += sizes[group]
    return [
        replace(sample, split=chosen.get(groups[sample.image], "train"), group=groups[sample.image])
        for sample in samples
    ]


def _by_group(samples: Sequence[Sample], groups: dict[Path, str]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        found[groups[sample.image]][_stratum(sample)] += 1
    return found


def _stratum(sample: Sample) -> str:
    return sample.answer if sample.labels else _QUESTIONS


def augmented(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with several views of each image."""
    views = _VIEWS if len({sample.image for sample in samples}) <= _FEW else 1
    return [replace(sample, views=views) for sample in samples]
