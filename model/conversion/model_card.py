"""Write the model card of a converted checkpoint: source, licence and limits."""

from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.report import REPORT_FILE, Report
from medmoe.model.files.weight_files import WEIGHTS_FILE

_FAMILIES = {
    "med_moe": "Med-MoE (arXiv 2404.10237): routed experts and an always-on meta expert",
    "moe_llava": "MoE-LLaVA (arXiv 2401.15947): routed experts without a meta expert",
    "dense": "dense LLaVA: no experts",
}
_CARD = """\
---
license: "{licence}"
---
# {name}

Research software, not a medical device. Not for diagnosis, triage or treatment. Converted weights: nothing here was
trained, evaluated or calibrated by the conversion.

- family: {family}
- decoder: {layers} layers of {hidden} ({backbone}), MoE layers {moe_layers}
- vision tower: {tower}, {image_size} px, images {mode}
- weights: SHA-256 `{digest}`
- licence of the weights: {licence}

`{report}` lists every tensor of the source: converted, tied, or dropped and why.
"""


def model_card(config: MedMoEConfig, report: Report, *, licence: str) -> str:
    text, vision = config.text_config, config.vision_config
    return _CARD.format(
        licence=licence,
        name=config.name,
        family=_FAMILIES[str(report.source["family"])],
        backbone=text.model_type,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        moe_layers=", ".join(map(str, text.moe_layers)) or "none",
        tower=vision.model_type,
        image_size=vision.image_size,
        mode="padded to a square" if config.image_processor.mode == "pad" else "cropped to the centre square",
        digest=report.sha256[WEIGHTS_FILE],
        report=REPORT_FILE,
    )
