"""Name the origin and the terms of each dataset, for the model card."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    title: str
    terms: str
    credit: str


LICENCES = {
    "slake": Licence(title="SLAKE 1.0, English part", terms="CC BY 4.0", credit="Liu et al. 2021"),
    "vqa_rad": Licence(title="VQA-RAD", terms="CC0 1.0", credit="Lau et al. 2018"),
    "vqa_med_2019": Licence(title="VQA-Med 2019 (sample)", terms="CC BY 4.0", credit="Ben Abacha et al. 2019"),
    "path_vqa": Licence(title="PathVQA (sample)", terms="MIT as declared", credit="He et al. 2020"),
    "mednist": Licence(title="MedNIST (sample)", terms="CC BY-SA 4.0", credit="B. J. Erickson"),
    "pneumonia_mnist": Licence(
        title="PneumoniaMNIST", terms="CC BY 4.0", credit="Yang et al. 2023; Kermany et al. 2018"
    ),
    "slake_ct_organs": Licence(title="Organ crops of SLAKE 1.0", terms="CC BY 4.0", credit="Liu et al. 2021"),
    "brain_tumor_mri": Licence(title="Brain tumour MRI (sample)", terms="MIT", credit="Bhuvaji et al. 2020"),
    "busi_ultrasound": Licence(title="BUSI, repeats removed", terms="CC BY 4.0", credit="Al-Dhabyani et al. 2020"),
    "isic2017_dermoscopy": Licence(title="ISIC 2017 (sample)", terms="CC0 1.0", credit="Codella et al. 2018"),
    "lc25000_lung": Licence(
        title="LC25000, lung (sample)", terms="the authors' statement of free use", credit="Borkowski et al. 2019"
    ),
    "bccd_cells": Licence(title="BCCD", terms="MIT", credit="the BCCD authors"),
}


def licence_table(datasets: Iterable[str]) -> str:
    """Return a Markdown table of the title, licence and credit of each of `datasets`; FOLDER/FILE counts as FOLDER."""
    rows = ["| dataset | licence | credit |", "| --- | --- | --- |"]
    for name in dict.fromkeys(dataset.partition("/")[0] for dataset in datasets):
        licence = LICENCES.get(name, Licence(title="", terms="not recorded here: ask its owner", credit=""))
        rows.append(f"| {licence.title or name} | {licence.terms} | {licence.credit} |")
    return "\n".join(rows)
