"""Write the parts of a model card that come from the run's own files.

Everything here is a function of the files on disk, so the same run gives the same text.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medmoe.model.checkpoint.io import expected_tensors
from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration import AnswerCalibration, Calibration, LabelCalibration, Temperature
from medmoe.model.files.digest import file_sha256
from medmoe.training.config import DataConfig, RunConfig, StageConfig
from medmoe.training.data.licences import licence_table
from medmoe.training.evaluation.report.markdown_table import table

Report = dict[str, Any]


def front_matter(licence: str | None) -> str:
    """Return the front matter, from which `inspect` and the service read the licence; empty without one."""
    return "" if licence is None else f"---\nlicense: {licence}\n---\n"


def terms(licence: str | None) -> str:
    """Return the terms of the weights and of the data; empty without a licence."""
    return "" if licence is None else f"The weights are licensed under {licence}; the data keep the terms above. "


def architecture(config: MedMoEConfig) -> str:
    text, vision = config.text_config, config.vision_config
    lines = [
        f"- vision tower: {vision.model_type}, {vision.num_hidden_layers} blocks, {vision.image_size} px",
        f"- projector: two layers; one image is {config.num_image_tokens} tokens",
        f"- decoder: {text.model_type}, {text.num_hidden_layers} layers of {text.hidden_size}, vocabulary "
        f"{text.vocab_size}",
    ]
    if text.moe_layers:
        meta = ", plus the always-on meta expert" if text.shared_expert else ", without a meta expert"
        lines.append(
            f"- MoE layers {', '.join(map(str, text.moe_layers))}: {text.num_experts} experts, "
            f"top-{text.num_experts_per_tok}{meta}"
        )
        if config.expert_domains:
            lines.append(f"- experts, in order: {', '.join(config.expert_domains)}")
    else:
        lines.append("- no MoE layers: every FFN is dense")
    return "\n".join(lines)


def stages_of(config: RunConfig, report: Report) -> list[StageConfig]:
    """Return the stages of gradient descent that this run did itself: with a base, stage 3 alone."""
    return [stage for stage in _stages(config) if stage.name in report]


def datasets(config: RunConfig, report: Report) -> str:
    return licence_table(entry.dataset for entry in _entries(config, report))


def left_out(config: RunConfig, report: Report) -> str:
    """Describe the images that are left out; empty where every image of the train splits may be seen."""
    names = dict.fromkeys(name for entry in _entries(config, report) for name in entry.without_images_of)
    return f"No training sample shows a test image of {', '.join(names)}. " if names else ""


def manifest_facts(path: Path) -> str:
    """Return the data by hash; a run from before manifests says that it has none."""
    if not path.exists():
        return "This run kept no manifest of its data."
    found = json.loads(path.read_text())
    splits = ", ".join(
        f"{split} {part['samples']} samples on {part['images']} images"
        for split, part in sorted(found["splits"].items())
        if part["samples"]
    )
    leaks = len(found["leaks"])
    return (
        f"The run's `manifest.json` lists every sample and the hash of every image: SHA-256 `{file_sha256(path)}` "
        f"({splits}). Of the held-out images among them {leaks} {'is a' if leaks == 1 else 'are'} training "
        f"image{'' if leaks == 1 else 's'} too."
    )


def stage_table(config: RunConfig, report: Report) -> str:
    columns = ["stage", "data", "samples", "steps", "trained parameters", "first loss", "last loss", "minutes"]
    rows = []
    for stage in stages_of(config, report):
        log = report[stage.name]
        seen = ", ".join(f"{entry.dataset} {entry.source}" for entry in stage.data)
        counts = [f"{log[name]}" for name in ("samples", "steps", "trainable_parameters")]
        losses = [f"{log[name]:.3f}" for name in ("first_loss", "last_loss")]
        rows.append([stage.name, seen, *counts, *losses, f"{log['seconds'] / 60:.1f}"])
    return table(columns, rows)


def router(config: RunConfig, report: Report) -> str:
    """Describe what gates the experts, and how well it knows images that it was not trained on."""
    if not config.architecture.text_config.moe_layers:
        return "There is no router."
    if "router" not in report:
        return "Each MoE layer's gate was trained with the experts, from the answers."
    found = report["router"]
    held_out = found["held_out"]
    domains = ", ".join(
        f"{domain} {100 * part['accuracy']:.1f} % of {part['images']}"
        for domain, part in held_out["per_domain"].items()
        if part["images"]
    )
    return (
        f"The router is a linear layer on pooled hidden states, trained on {sum(found['training_images'].values())} "
        f"images. On {held_out['images']} held-out images it names the modality of {100 * held_out['accuracy']:.1f} % "
        f"({domains})."
    )


def origins(config: RunConfig, report: Report) -> str:
    """Name the origins of weights that no stage of this run made, and of the vision tower."""
    names = [name for name in expected_tensors(config.architecture) if name.startswith("vision_tower.")]
    trained = [
        stage.name
        for stage in stages_of(config, report)
        if any(re.match(pattern, name) for pattern in stage.trainable for name in names)
    ]
    fate = f"was trained in {' and '.join(trained)}" if trained else "stayed frozen"
    return " ".join([f"The vision tower {fate}.", *report.get("origins", {}).values()])


def recipe(config: RunConfig, *, commit: str | None) -> str:
    digest = hashlib.sha256(config.to_json().encode()).hexdigest()
    code = "code of an installed package" if commit is None else f"code of commit `{commit}`"
    return f"Recipe `{config.name}`, seed {config.seed}, whose `recipe.json` has the SHA-256 `{digest}`; {code}."


def calibration_facts(found: Calibration | None) -> str:
    if found is None:
        return "Nothing is calibrated: probabilities are the model's own."
    lines = [_fit(f"Probabilities of {', '.join(fit.labels)}", fit) for fit in found.label_sets]
    if found.answers is not None:
        lines.append(_fit("Answers' confidences", found.answers))
    return "\n".join(["`calibration.json` holds:", "", *lines])


def _fit(name: str, fit: LabelCalibration | AnswerCalibration) -> str:
    shape = (
        f"temperature {fit.map.temperature:.3f}" + (f" and bias {fit.map.bias:.3f}" if fit.map.bias else "")
        if isinstance(fit.map, Temperature)
        else f"an isotonic map of {len(fit.map.x)} points"
    )
    rest, data = fit.held_out, ", ".join(fit.fitted_on.datasets)
    return (
        f"- {name}: {shape}, fitted on {fit.fitted_on.n} samples of {data} ({fit.fitted_on.split}); on {rest.n} others "
        f"of that split ECE {100 * rest.ece_before:.1f} -> {100 * rest.ece_after:.1f} %, negative log-likelihood "
        f"{rest.nll_before:.3f} -> {rest.nll_after:.3f}"
    )


def _stages(config: RunConfig) -> Iterator[StageConfig]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, StageConfig):
            yield value


def _entries(config: RunConfig, report: Report) -> Iterable[DataConfig]:
    images = () if config.router is None else config.router.data
    return (*(entry for stage in stages_of(config, report) for entry in stage.data), *images)
