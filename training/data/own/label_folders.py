"""Read a folder that holds a folder of images for each label."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from unicodedata import normalize

from medmoe.client.images.folder import files_below, is_hidden
from medmoe.model.image_formats.signature import RASTER_SUFFIXES
from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.own.dicom_files import RENDER, is_dicom
from medmoe.training.data.own.split_names import SPLIT_NAMES
from medmoe.training.data.read_result import BadItem, ReadResult
from medmoe.training.data.sample import Sample

_UNREAD = ".gif"
"""Ending of images that are not read."""


def holds_label_folders(directory: Path) -> bool:
    """Return whether the folders of `directory` are those of labels, or of splits, and one of them holds an image.

    A folder `images`, or one of a split beside others, belongs to a dataset of another format.
    """
    names = {folder.name.lower() for folder in _folders(directory)}
    if names & {"images", *SPLIT_NAMES} and not states_splits(directory):
        return False
    return any(
        file.suffix.lower() in (*RASTER_SUFFIXES, _UNREAD) or is_dicom(file)
        for folder in _folders(directory)
        for file in _files_below(folder)
    )


def beside_splits(directory: Path) -> tuple[str, ...]:
    """Return the names of other folders beside those of splits, which keep a folder from being read.

    None elsewhere, and none beside `images`, which belongs to a dataset of another format.
    """
    names = tuple(folder.name for folder in _folders(directory))
    others = tuple(name for name in names if name.lower() not in SPLIT_NAMES)
    return others if len(others) < len(names) and "images" not in others else ()


def states_splits(directory: Path) -> bool:
    """Return whether the folders of `directory` are those of splits, with a folder for each label in them."""
    folders = _folders(directory)
    return bool(folders) and all(folder.name.lower() in SPLIT_NAMES for folder in folders)


def read_label_folders(
    directory: Path, *, split: Split | None = None, stated_labels: tuple[str, ...] = ()
) -> ReadResult:
    """Return the samples of one split; of all without `split`.

    Where the folders state no split, every image is of `split`, or of train. Folders below a label's folder belong to
    the label. `stated_labels` are as in `label_set`. Raises DatasetError as that does, for a label that is not UTF-8
    text, and for a folder that cannot be read.
    """
    stated = states_splits(directory)
    parents = {folder: SPLIT_NAMES[folder.name.lower()] for folder in _folders(directory)} if stated else {}
    unstated: Split = split or "train"
    images: list[tuple[Split, str, Path]] = []
    bad = [_bad(file, directory, "lies in no label's folder") for file in _files([directory, *parents])]
    for parent, folder_split in (parents or {directory: unstated}).items():
        for folder in _folders(parent):
            if not _is_text(folder.name):
                raise DatasetError(f"{folder} has a name that is not UTF-8 text, as a label must be; rename it")
            files = _files_below(folder)
            if not files:
                bad.append(_bad(folder, directory, "is a folder without files"))
            for file in files:
                ending = file.suffix.lower()
                if not _is_text(file.relative_to(folder).as_posix()):
                    bad.append(_bad(file, directory, "its name is not UTF-8 text; rename it"))
                elif ending in RASTER_SUFFIXES:
                    images.append((folder_split, label_text(folder.name), file.absolute()))
                elif is_dicom(file):
                    bad.append(_bad(file, directory, RENDER))
                else:
                    bad.append(_bad(file, directory, f"no image that is read: its name ends in {ending or file.name}"))
    labels = label_set((label for _, label, _ in images), source=f"the folders in {directory}", stated=stated_labels)
    root = directory.absolute()
    samples = [
        Sample(
            id=f"{root.name}/{image.relative_to(root).as_posix()}",
            dataset=root.name,
            image=image,
            split=image_split,
            answer=label,
            labels=labels,
        )
        for image_split, label, image in images
        if split in (None, image_split)
    ]
    return ReadResult(samples=tuple(samples), bad=tuple(bad))


def folders_below_labels(directory: Path, samples: Iterable[Sample]) -> int:
    """Return the number of folders below those of the labels that hold images of `samples`."""
    root, of_label = directory.absolute(), 2 if states_splits(directory) else 1
    folders = {sample.image.parent.relative_to(root) for sample in samples}
    return sum(len(folder.parts) > of_label for folder in folders)


def label_text(text: str) -> str:
    """Return a label in composed characters, as keyboards write it: names of files from a Mac are decomposed."""
    return normalize("NFC", text).strip()


def label_set(labels: Iterable[str], *, source: str, stated: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels in alphabetical order; those of `stated`, if there are any, of which the images may lack some.

    Raises DatasetError for a single one, which leaves no choice, for two spellings of one, and for one that `stated`
    lacks.
    """
    of_images, offered = set(filter(None, labels)), set(map(label_text, stated))
    found = tuple(sorted(of_images | offered))
    spellings: dict[str, str] = {}
    for label in found:
        if (other := spellings.setdefault(_spoken(label), label)) != label:
            raise DatasetError(f"{source} spell a label in two ways, {other!r} and {label!r}; write it alike")
    if len(found) == 1:
        raise DatasetError(f"{source} hold one label alone, {found[0]}; a classifier needs images of at least two")
    if offered and (missing := of_images - offered):
        raise DatasetError(f"{source} hold labels that are not among those stated: {', '.join(sorted(missing))}")
    return found


def _spoken(label: str) -> str:
    """Return a label without its capitals, the number of its blanks, and variants of letters."""
    return " ".join(normalize("NFKC", label).casefold().split())


def _folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not is_hidden(path.name))


def _files(directories: Iterable[Path]) -> Iterator[Path]:
    for directory in directories:
        yield from sorted(path for path in directory.iterdir() if path.is_file() and not is_hidden(path.name))


def _files_below(folder: Path) -> list[Path]:
    """Return the files below `folder` by name. Raises DatasetError where one of its folders cannot be read."""
    try:
        return sorted(files_below(folder))
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}") from error


def _is_text(name: str) -> bool:
    """Return whether the name of a file or a folder is UTF-8: other bytes of it are lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _bad(file: Path, directory: Path, reason: str) -> BadItem:
    return BadItem(file=str(file.relative_to(directory)), place=0, reason=reason)
