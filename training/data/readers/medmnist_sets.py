"""Define what each class number of MedMNIST's 2D sets means (Yang et al. 2023, the package's `info.py`, version 3.0).

Names are the published ones but for three kinds that a prompt cannot carry: a comma inside a name would read as two
labels ("normal, benign"), a long gloss in brackets says nothing a label needs, and RetinaMNIST's bare digits get the
word for what they count.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MedMNISTSet:
    title: str
    modality: str
    labels: tuple[str, ...]
    """By class number."""


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

SETS = {
    "pathmnist": MedMNISTSet(
        title="PathMNIST",
        modality="pathology",
        labels=(
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "dermamnist": MedMNISTSet(
        title="DermaMNIST",
        modality="dermoscopy",
        labels=(
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
    ),
    "octmnist": MedMNISTSet(
        title="OCTMNIST",
        modality="OCT",
        labels=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "pneumoniamnist": MedMNISTSet(title="PneumoniaMNIST", modality="X-ray", labels=("normal", "pneumonia")),
    # Published as ordinal regression: five grades of diabetic retinopathy, "0" to "4".
    "retinamnist": MedMNISTSet(
        title="RetinaMNIST", modality="fundus photography", labels=tuple(f"grade {grade}" for grade in range(5))
    ),
    # Published as "normal, benign".
    "breastmnist": MedMNISTSet(title="BreastMNIST", modality="ultrasound", labels=("malignant", "normal or benign")),
    "bloodmnist": MedMNISTSet(
        title="BloodMNIST",
        modality="microscopy",
        # Class 3 is published with "(myelocytes, metamyelocytes and promyelocytes)".
        labels=(
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    "tissuemnist": MedMNISTSet(
        title="TissueMNIST",
        modality="microscopy",
        # Class 0 is published as "Collecting Duct, Connecting Tubule".
        labels=(
            "Collecting Duct or Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
    ),
    "organamnist": MedMNISTSet(title="OrganAMNIST", modality="CT", labels=_ORGANS),
    "organcmnist": MedMNISTSet(title="OrganCMNIST", modality="CT", labels=_ORGANS),
    "organsmnist": MedMNISTSet(title="OrganSMNIST", modality="CT", labels=_ORGANS),
}

MULTI_LABEL = "chestmnist"
"""14 findings, any number of them in one image: no single-label question can ask for that."""
