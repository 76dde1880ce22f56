"""Define the openly licensed data that the sizes without published data are trained on, by folder."""

from medmoe.training.config import DataConfig, Split

DOMAINS = ("CT", "MRI", "X-ray", "pathology")
RADIOLOGY = ("slake", "vqa_rad", "vqa_med_2019")


TESTED = (
    "slake",
    "vqa_rad",
    "path_vqa",
    "pneumonia_mnist",
    "mednist",
    "brain_tumor_mri",
    "slake_ct_organs",
    "lc25000_lung",
    "bccd_cells",
    "busi_ultrasound",
    "isic2017_dermoscopy",
)
"""What has a test split."""


def captions() -> tuple[DataConfig, ...]:
    return (
        DataConfig(dataset="slake", source="captions"),
        # Joined from four answers each, and long: as many as SLAKE has, twice over.
        DataConfig(dataset="vqa_med_2019", source="captions", limit=900),
    )


def grounding() -> tuple[DataConfig, ...]:
    """Return the questions whose answers are mostly to be seen, four times each, and a part of every label set.

    SLAKE and VQA-RAD have few images: each is drawn in one of four views.
    """
    return (
        DataConfig(dataset="slake", source="vqa", repeat=4, views=4),
        # The hardest of all questions.
        DataConfig(dataset="vqa_rad", source="vqa", repeat=4, views=4),
        _modality("slake", views=4),
        _modality("vqa_med_2019", limit=600),
        _modality("path_vqa", limit=200),
        *label_sets(share=0.4),
    )


def questions() -> tuple[DataConfig, ...]:
    """Return all questions as one mixture."""
    return (
        DataConfig(dataset="slake", source="vqa", repeat=2, views=4),
        DataConfig(dataset="vqa_rad", source="vqa", repeat=3, views=4),
        DataConfig(dataset="vqa_med_2019", source="vqa"),
        DataConfig(dataset="path_vqa", source="vqa"),
        *modality_questions(),
        *label_sets(),
    )


def modality_questions() -> tuple[DataConfig, ...]:
    """Return questions that offer the router's domains as labels, as a user would."""
    return (
        _modality("slake", views=4),
        _modality("vqa_rad", views=4),
        _modality("vqa_med_2019", limit=1200),
        _modality("path_vqa", limit=400),
        _modality("lc25000_lung", limit=80, modality="pathology"),
        _modality("bccd_cells", limit=80, modality="pathology"),
    )


def label_sets(share: float = 1.0) -> tuple[DataConfig, ...]:
    """Return classification on `share` of the large sets' training images, each image also asked about in other words.

    In PneumoniaMNIST, labels are balanced, because its train and test splits have different shares of pneumonia. Brain
    tumour labels are made equally frequent for the same reason. Dermoscopy and ultrasound keep their shares, which are
    those of their test splits.
    """
    return (
        DataConfig(
            dataset="pneumonia_mnist", source="classification", limit=round(share * 2400), balanced=True, wordings=1
        ),
        # Nearly separable: half is plenty.
        DataConfig(dataset="mednist", source="classification", limit=round(share * 1400), wordings=1),
        DataConfig(
            dataset="brain_tumor_mri", source="classification", limit=round(share * 2200), even=True, wordings=2
        ),
        DataConfig(dataset="slake_ct_organs", source="classification", wordings=2, views=4, repeat=2),
        DataConfig(dataset="lc25000_lung", source="classification", limit=round(share * 1600), wordings=2),
        DataConfig(dataset="bccd_cells", source="classification", wordings=2, views=4),
        DataConfig(dataset="busi_ultrasound", source="classification", wordings=2, views=4, repeat=2),
        DataConfig(dataset="isic2017_dermoscopy", source="classification", limit=round(share * 1900), wordings=2),
    )


def router_images() -> tuple[DataConfig, ...]:
    return (
        *(_modality(name) for name in (*RADIOLOGY, "mednist", "path_vqa")),
        _modality("brain_tumor_mri", limit=300),
        _modality("lc25000_lung", limit=300, modality="pathology"),
        _modality("bccd_cells", limit=200, modality="pathology"),
    )


def router_held_out() -> tuple[DataConfig, ...]:
    return (
        *(_modality(name, split="val") for name in ("slake", "vqa_med_2019", "mednist", "brain_tumor_mri")),
        # PathVQA has no validation split here.
        _modality("path_vqa", split="test"),
        _modality("lc25000_lung", split="val", modality="pathology"),
        _modality("bccd_cells", split="val", modality="pathology"),
    )


def _modality(
    name: str, *, split: Split = "train", limit: int | None = None, modality: str | None = None, views: int = 1
) -> DataConfig:
    return DataConfig(
        dataset=name,
        source="modality",
        split=split,
        limit=limit,
        modality=modality,
        views=views,
        offer_all_domains=True,
    )


def modalities(*names: str, split: Split = "train") -> tuple[DataConfig, ...]:
    return tuple(DataConfig(dataset=name, source="modality", split=split) for name in names)
