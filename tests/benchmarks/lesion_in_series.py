"""Finetune on drawn slices, and measure how often the best slice of a drawn series of 64 shows its lesion.

    python -m tests.benchmarks.lesion_in_series [--images 240] [--series 10] [--slices 16] [--work DIR]

Draws abdominal CT slices of patients who differ, half of them with a bright or dark lesion in the liver, and runs
`medmoe finetune` on them. Serves the result with the real engine and sends series of further patients in shuffled
order, in turn as files and as a ZIP archive: each once with a lesion in slices 20 to 30, and once without. Where
Orthanc is installed, the first series is also asked about there with `medmoe series --store`, and dciodvfy checks the
report. The slices for training have their lesions at any height, so only the lesion tells the slices of one series
apart. With `--work` the checkpoint is kept there, and used again.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medmoe.client import Client, SeriesClassification
from tests.support.images.abdomen import LESION, SLICES, Abdomen
from tests.support.images.series_files import archive
from tests.support.service.orthanc import ORTHANC, PASSWORD, PLUGIN, USER, Orthanc, orthanc
from tests.support.service.server_process import server_process

LABELS = ("lesion", "no_lesion")
_START = 600.0
_TIMEOUT = 600.0
_FIRST_TRAINED = 10_000
"""Seed of the first patient for training; series have the seeds from 0."""


def draw_slices(folder: Path, count: int) -> None:
    """Draw a slice of each of `count` patients, every other one with a lesion at the slice's height."""
    chance = np.random.default_rng(1)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for number in range(count):
        label, index, lesion = LABELS[number % 2], int(chance.integers(SLICES)), None
        if label == "lesion":
            start = index - int(chance.integers(len(LESION)))
            lesion = range(start, start + len(LESION))
        Abdomen(_FIRST_TRAINED + number).image(index, lesion=lesion).save(folder / label / f"{number:04}.png")


def finetuned(work: Path, count: int) -> Path:
    """Return a checkpoint that was finetuned on `count` drawn slices, in `work`."""
    checkpoint = work / "checkpoint"
    if not checkpoint.exists():
        if not (work / "slices").exists():
            draw_slices(work / "slices", count)
        command = [sys.executable, "-m", "medmoe.model.cli", "finetune"]
        subprocess.run([*command, str(work / "slices"), "--output", str(checkpoint)], check=True)
    return checkpoint


@contextmanager
def pacs(work: Path) -> Iterator[tuple[Orthanc | None, dict[str, str]]]:
    """Run an Orthanc where it is installed; yield it with the settings that make it a source of the service."""
    if not (Path(ORTHANC).exists() and PLUGIN.exists()):
        print("no Orthanc here: nothing is asked by DICOMweb", flush=True)
        yield None, {}
        return
    with tempfile.TemporaryDirectory(dir=work) as folder, orthanc(Path(folder)) as started:
        sources = Path(folder) / "sources.toml"
        (Path(folder) / "password").write_text(f"{USER}:{PASSWORD}\n")
        sources.write_text(f'[pacs]\nurl = "{started.url}"\npassword_file = "password"\nstore = true\n')
        yield started, {"MEDMOE_DICOMWEB_SOURCES": str(sources)}


def ask(client: Client, seed: int, *, lesion: range | None, slices: int) -> SeriesClassification:
    """Send a patient's series in shuffled order, as files or as an archive."""
    files = list(Abdomen(seed).files(lesion=lesion))
    random.Random(seed).shuffle(files)
    sent = archive(files) if seed % 2 else files
    return client.classify_series(sent, LABELS, finding=LABELS[0], slices=slices)


def ask_by_dicomweb(source: Orthanc, url: str, seed: int, work: Path, *, slices: int) -> None:
    """Ask about a patient's series in Orthanc with the command, store the report, and check it."""
    for file in Abdomen(seed).files():
        source.add(file)
    study, series = Abdomen(seed).uids
    report = work / "report.dcm"
    labels = [word for label in LABELS for word in ("--label", label)]
    named = ["--source", "pacs", "--study", study, "--series", series, "--slices", str(slices), "--finding", LABELS[0]]
    command = [sys.executable, "-m", "medmoe.model.cli", "series", *labels, *named, "--url", url]
    command += ["--sr", str(report), "--store", "pacs", "--timeout", str(_TIMEOUT)]
    print("\nThe first series in Orthanc, asked about by `medmoe series`:", flush=True)
    subprocess.run(command, check=True)
    print(f"reports in Orthanc: {len(source.query(f'/studies/{study}/series', Modality='SR'))}")
    if checker := shutil.which("dciodvfy"):
        checked = subprocess.run([checker, str(report)], capture_output=True, text=True, check=False)
        print(f"dciodvfy: {sum(line.startswith('Error') for line in checked.stderr.splitlines())} errors")


def area(with_lesion: Sequence[float], without: Sequence[float]) -> float:
    """Return the area under the ROC curve."""
    return float(np.mean([(one > other) + (one == other) / 2 for one in with_lesion for other in without]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240, help="drawn slices to finetune on")
    parser.add_argument("--series", type=int, default=10)
    parser.add_argument("--slices", type=int, default=16, help="of each series to look at")
    parser.add_argument("--work", type=Path, help="directory for images and checkpoint; a temporary one without it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        model = {"MEDMOE_MODEL": str(finetuned(work, options.images))}
        with pacs(work) as (source, settings), server_process(settings=model | settings) as server:
            server.wait_ready(_START)
            hits, unnamed, found = 0, 0, np.zeros((options.series, 2))
            with Client(server.url, timeout=_TIMEOUT) as client:
                for seed in range(options.series):
                    shown = ask(client, seed, lesion=LESION, slices=options.slices)
                    without = ask(client, seed, lesion=None, slices=options.slices)
                    found[seed] = [one.probabilities[0].probability for one in (shown, without)]
                    hits += shown.best_slice in LESION
                    unnamed += max(shown.probabilities, key=lambda one: one.probability).best_slice in LESION
                    print(
                        f"{seed}: {shown.labels[0]}, best slice {shown.best_slice}, lesion {found[seed, 0]:.3f}; "
                        f"without the lesion {without.labels[0]}, best slice {without.best_slice}, "
                        f"lesion {found[seed, 1]:.3f}",
                        flush=True,
                    )
            chance = sum(index in LESION for index in shown.series.sampled) / len(shown.series.sampled)
            print(f"the best slice shows the lesion in {hits} of {options.series} series (chance {chance:.2f})")
            print(f"by the largest probability of either label, without `finding`, it would in {unnamed}")
            print(f"AUC of series with and without it: {area(found[:, 0], found[:, 1]):.2f}")
            if source is not None:
                ask_by_dicomweb(source, server.url, 0, work, slices=options.slices)
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
