"""Define other words for the labels of the open classification sets, and words that are kept out of training.

A label that training only ever spells in one way is recited; one that it spells in many ways must be read. `SPELLINGS`
are trained on; `HELD_OUT` never are, and measure whether a label was read. `COARSE` puts labels together: an image of
a glioma is one of a tumor. All are keyed by the label set, so that the same labels out of another folder find them too.
"""

from collections.abc import Mapping
from types import MappingProxyType

Spellings = Mapping[str, tuple[str, ...]]
"""A label of the set to other words for it."""
Group = tuple[tuple[str, ...], frozenset[str]]
"""Words for several labels at once, and these labels."""


def _key(*labels: str) -> frozenset[str]:
    return frozenset(labels)


_PNEUMONIA = _key("normal", "pneumonia")
_REGION = _key("abdomen CT", "breast MRI", "chest X-ray", "chest CT", "hand X-ray", "head CT")
_BRAIN = _key("glioma", "meningioma", "no tumor", "pituitary")
_ORGANS = _key("liver", "kidney", "spleen", "small bowel", "colon", "spinal cord", "lung", "heart", "bladder", "rectum")
_LUNG = _key("benign lung tissue", "lung adenocarcinoma", "lung squamous cell carcinoma")
_CELLS = _key("RBC", "WBC", "platelets")
_BREAST = _key("benign", "malignant", "normal")
_SKIN = _key("melanoma", "not melanoma")

SPELLINGS: Mapping[frozenset[str], Spellings] = MappingProxyType(
    {
        _PNEUMONIA: {
            "normal": ("healthy", "no pneumonia", "clear lungs", "healthy lungs", "no finding", "not pneumonia"),
            "pneumonia": ("lung infection", "pneumonia present", "lung opacity", "signs of pneumonia", "abnormal"),
        },
        _REGION: {
            "abdomen CT": ("CT of the abdomen", "abdominal CT scan", "abdominal CT"),
            "breast MRI": ("MRI of the breast", "breast MR", "MRI scan of the breast"),
            "chest X-ray": ("X-ray of the chest", "chest radiograph", "thoracic X-ray"),
            "chest CT": ("CT of the chest", "thoracic CT scan", "CT scan of the lungs"),
            "hand X-ray": ("X-ray of the hand", "hand radiograph", "hand film"),
            "head CT": ("CT of the head", "brain CT scan", "cranial CT"),
        },
        _BRAIN: {
            "glioma": ("brain glioma", "glial tumor", "glioma tumor", "tumor of the glia"),
            "meningioma": ("meningeal tumor", "meningioma tumor", "tumor of the meninges"),
            "no tumor": ("no brain tumor", "healthy brain", "normal", "normal brain", "no mass"),
            "pituitary": ("pituitary tumor", "pituitary adenoma", "tumor of the pituitary"),
        },
        _ORGANS: {
            "liver": ("the liver", "hepatic tissue"),
            "kidney": ("the kidney", "renal tissue"),
            "spleen": ("the spleen", "splenic tissue"),
            "small bowel": ("small intestine", "the small bowel"),
            "colon": ("large bowel", "the colon"),
            "spinal cord": ("the spinal cord", "cord in the spine"),
            "lung": ("the lung", "pulmonary tissue"),
            "heart": ("the heart", "cardiac muscle"),
            "bladder": ("urinary bladder", "the bladder"),
            "rectum": ("the rectum", "rectal bowel"),
        },
        _LUNG: {
            "benign lung tissue": ("benign", "normal lung", "healthy lung tissue", "benign tissue"),
            "lung adenocarcinoma": ("adenocarcinoma", "adenocarcinoma of the lung", "glandular carcinoma"),
            "lung squamous cell carcinoma": ("squamous cell carcinoma", "squamous carcinoma", "squamous lung cancer"),
        },
        _CELLS: {
            "RBC": ("red blood cell", "erythrocyte", "red cell", "red blood cells"),
            "WBC": ("white blood cell", "leukocyte", "white cell", "white blood cells"),
            "platelets": ("platelet", "thrombocyte", "blood platelet"),
        },
        _BREAST: {
            "benign": ("benign lesion", "benign mass", "benign tumor"),
            "malignant": ("malignant lesion", "cancer", "malignant mass", "breast cancer"),
            "normal": ("no lesion", "healthy breast", "no mass", "no finding"),
        },
        _SKIN: {
            "melanoma": ("malignant melanoma", "malignant", "skin cancer", "malignant lesion"),
            "not melanoma": ("no melanoma", "benign", "benign lesion", "no cancer"),
        },
    }
)

COARSE: Mapping[frozenset[str], tuple[tuple[Group, Group], ...]] = MappingProxyType(
    {
        _BRAIN: (
            (
                (("tumor", "brain tumor", "abnormal", "mass", "lesion"), _key("glioma", "meningioma", "pituitary")),
                (("no tumor", "normal", "healthy", "no lesion"), _key("no tumor")),
            ),
        ),
        _LUNG: (
            (
                (
                    ("cancer", "malignant", "carcinoma", "lung cancer"),
                    _key("lung adenocarcinoma", "lung squamous cell carcinoma"),
                ),
                (("benign", "normal", "no cancer", "healthy"), _key("benign lung tissue")),
            ),
        ),
        _BREAST: (
            (
                (("lesion", "abnormal", "mass"), _key("benign", "malignant")),
                (("no lesion", "normal", "healthy"), _key("normal")),
            ),
            (
                (("malignant", "cancer", "malignant tumor"), _key("malignant")),
                (("not malignant", "no cancer", "not cancer"), _key("benign", "normal")),
            ),
        ),
    }
)

HELD_OUT: Mapping[frozenset[str], tuple[Mapping[str, str], ...]] = MappingProxyType(
    {
        _PNEUMONIA: (
            {"normal": "normal lungs", "pneumonia": "pneumonia of the lungs"},
            {"normal": "no infection", "pneumonia": "infection"},
            {"normal": "lungs without opacity", "pneumonia": "lungs with opacity"},
        ),
        _REGION: (
            {
                "abdomen CT": "CT image of the abdomen",
                "breast MRI": "MR image of the breast",
                "chest X-ray": "plain film of the chest",
                "chest CT": "CT image of the chest",
                "hand X-ray": "plain film of the hand",
                "head CT": "CT image of the head",
            },
            {
                "abdomen CT": "computed tomography, abdomen",
                "breast MRI": "magnetic resonance, breast",
                "chest X-ray": "radiograph, chest",
                "chest CT": "computed tomography, chest",
                "hand X-ray": "radiograph, hand",
                "head CT": "computed tomography, head",
            },
            {
                "abdomen CT": "a CT slice through the belly",
                "breast MRI": "an MRI slice through the breasts",
                "chest X-ray": "an X-ray of the thorax",
                "chest CT": "a CT slice through the thorax",
                "hand X-ray": "an X-ray of fingers",
                "head CT": "a CT slice through the skull",
            },
        ),
        _BRAIN: (
            {
                "glioma": "a glioma of the brain",
                "meningioma": "a meningioma of the brain",
                "no tumor": "a brain without tumor",
                "pituitary": "a pituitary mass",
            },
            {
                "glioma": "glial neoplasm",
                "meningioma": "meningeal neoplasm",
                "no tumor": "no neoplasm",
                "pituitary": "pituitary neoplasm",
            },
            {
                "glioma": "glioma on MRI",
                "meningioma": "meningioma on MRI",
                "no tumor": "no abnormality",
                "pituitary": "tumor in the pituitary gland",
            },
        ),
        _ORGANS: tuple(
            {label: wording.format(label) for label in sorted(_ORGANS)}
            for wording in ("{} on CT", "part of the {}", "organ: {}")
        ),
        _LUNG: (
            {
                "benign lung tissue": "lung tissue without cancer",
                "lung adenocarcinoma": "pulmonary adenocarcinoma",
                "lung squamous cell carcinoma": "pulmonary squamous cell carcinoma",
            },
            {
                "benign lung tissue": "ordinary lung cells",
                "lung adenocarcinoma": "adenocarcinoma cells",
                "lung squamous cell carcinoma": "squamous cells of a carcinoma",
            },
            {
                "benign lung tissue": "benign, lung",
                "lung adenocarcinoma": "malignant, adenocarcinoma",
                "lung squamous cell carcinoma": "malignant, squamous",
            },
        ),
        _CELLS: (
            {"RBC": "a red blood cell", "WBC": "a white blood cell", "platelets": "a platelet"},
            {"RBC": "erythrocytes", "WBC": "leukocytes", "platelets": "thrombocytes"},
            {"RBC": "red corpuscle", "WBC": "white corpuscle", "platelets": "blood platelets"},
        ),
        _BREAST: (
            {"benign": "a benign nodule", "malignant": "a malignant nodule", "normal": "no nodule"},
            {"benign": "benign finding", "malignant": "malignant finding", "normal": "normal breast tissue"},
            {"benign": "benign change", "malignant": "carcinoma", "normal": "nothing abnormal"},
        ),
        _SKIN: (
            {"melanoma": "a melanoma", "not melanoma": "not a melanoma"},
            {"melanoma": "melanoma of the skin", "not melanoma": "harmless spot"},
            {"melanoma": "cancerous", "not melanoma": "not cancerous"},
        ),
    }
)
