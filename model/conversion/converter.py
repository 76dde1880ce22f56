"""Convert an upstream checkpoint directory in one pass and in little memory.

Everything is decided from headers and config.json before the first weight is read; then each tensor is read, checked
and written once. The target appears whole or not at all.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from medmoe.model.checkpoint.staging import staged_directory
from medmoe.model.checkpoint.tensor_writer import TensorWriter
from medmoe.model.checkpoint.tokenizer_files import write_tokenizer
from medmoe.model.config import CONFIG_FILE, MedMoEConfig
from medmoe.model.conversion.model_card import model_card
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.plan import Step, Tower, account_for_the_rest, most_common_dtype, plan_steps
from medmoe.model.conversion.prompt_template import prompt_fields
from medmoe.model.conversion.report import REPORT_FILE, Report
from medmoe.model.conversion.target import check_space, check_target
from medmoe.model.conversion.tokenizer.foreign import guarded
from medmoe.model.conversion.tokenizer.source import read_tokenizer
from medmoe.model.conversion.tokenizer.vocabulary import Vocabulary, build_vocabulary
from medmoe.model.conversion.tower_directory import find_tower
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.conversion.upstream.moe_layout import moe_layout
from medmoe.model.conversion.upstream.text_backbone import find_backbone, text_fields
from medmoe.model.conversion.upstream.vision import image_processor_fields, vision_fields
from medmoe.model.conversion.verification import check_copies, check_duplicate
from medmoe.model.conversion.weights.source_files import contained_file, find_weights, read_contained
from medmoe.model.conversion.weights.tensor_source import TensorSource
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.licence import CARD_FILE, MAX_LICENCE_BYTES, licence_file, stated_licence
from medmoe.model.files.router_fingerprint import RouterFingerprint
from medmoe.model.files.weight_files import WEIGHTS_FILE
from medmoe.model.prompt import Prompt

Progress = Callable[[int, int], None]
"""Called after each tensor with the bytes written so far and in all."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NO_DROPS = "no token is ever dropped: upstream's capacity always suffices when it answers"
_IGNORED_IN_MOE = {
    "capacity_factor": _NO_DROPS,
    "eval_capacity_factor": _NO_DROPS,
    "min_capacity": _NO_DROPS,
    "router_aux_loss_coef": "a loss, used in training only",
    "train_modules": "used in training only",
    "ep_size": "how upstream spread the experts over devices",
}


def convert(source: Path, target: Path, options: Options, *, progress: Progress = lambda done, total: None) -> Report:
    """Write `target` from the upstream directory `source` and return what was done with each tensor.

    Raises ConfigError for a checkpoint that this build cannot represent or whose config.json disagrees with its
    tensors, CheckpointError for files that are damaged, incomplete or not to be trusted, or a target in the way.
    """
    place = check_target(source, target, options)
    files = find_weights(source, verify=options.verify)
    upstream = UpstreamConfig.from_directory(source)
    if upstream.text("model_type") == "medmoe":
        raise ConfigError(f"{source} is converted already: serve it with `medmoe serve`")
    licence, texts = stated_licence(source), _read_texts(source)
    tensors = TensorSource(files)
    report = Report(ignored_files=dict(files.ignored))
    if options.verify:
        check_duplicate(tensors, files.duplicate)
        report.notes.append(f"{files.names} and the duplicate .bin hold the same values")
    found = _Found(upstream, tensors, *find_tower(tensors, options))
    config, vocabulary = _configuration(found, source, options, report, name=place.name)
    steps = plan_steps(config, tensors, found.tower, report)
    video = "mm_video_tower" in upstream
    copies = account_for_the_rest(config, tensors, found.tower, steps, report, video=video)
    check_space(place, nbytes=sum(step.spec.nbytes for step in steps))
    check_copies(tensors, copies)
    report.tied.update(copies)
    for part in ("vision_tower", "projector", "language_model"):
        sizes = [math.prod(step.spec.shape) for step in steps if step.spec.name.startswith(f"{part}.")]
        report.parameters[part] = sum(sizes)
    with staged_directory(place, replace=options.overwrite) as staging:
        _write_weights(staging / WEIGHTS_FILE, steps, config, report, progress)
        (staging / CONFIG_FILE).write_bytes(config.to_json().encode())
        with guarded("the tokenizer cannot be written"):
            write_tokenizer(vocabulary.tokenizer, staging, config=config)
            # Loading the result refuses the same.
            Prompt.from_directory(staging, MedMoEConfig.from_directory(staging))
        (staging / REPORT_FILE).write_bytes(report.to_json())
        (staging / CARD_FILE).write_bytes(model_card(config, report, licence=licence).encode())
        for name, content in texts.items():
            (staging / name).write_bytes(content)
    return report


@dataclass(frozen=True)
class _Found:
    """Hold the files of the source, opened but not yet read."""

    upstream: UpstreamConfig
    tensors: TensorSource
    tower: Tower
    tower_config: UpstreamConfig | None


def _read_texts(source: Path) -> dict[str, bytes]:
    """Return the licence's text by file name. Raises CheckpointError when it or the card leads out or is unreadable."""
    if (source / CARD_FILE).exists():
        contained_file(source, CARD_FILE)
    file = licence_file(source)
    return {file.name: read_contained(source, file.name, limit=MAX_LICENCE_BYTES)} if file else {}


def _configuration(
    found: _Found, source: Path, options: Options, report: Report, *, name: str
) -> tuple[MedMoEConfig, Vocabulary]:
    """Return configuration and vocabulary. `name` is the target's, for a model without a name in `options`."""
    shapes, upstream = found.tensors.shapes, found.upstream
    backbone = find_backbone(shapes, upstream)
    layout = moe_layout(shapes, upstream, report, top_k=options.top_k)
    _check_fields(upstream, options, report)
    weights = "shards" if _sharded(found.tensors) else "file"
    report.source |= {"family": layout.family, "backbone": backbone, "weights": weights}
    text = text_fields(backbone, shapes, upstream, report)
    rows = shapes["model.embed_tokens.weight"][0]
    vocabulary = build_vocabulary(read_tokenizer(source), backbone, upstream, options, report, rows=rows)
    vision = vision_fields(found.tower.shapes, upstream, options, report, tower_config=found.tower_config)
    default = name if _NAME.fullmatch(name) else "medmoe"
    fields = {
        "name": default if options.name is None else options.name,
        "dtype": most_common_dtype(found.tensors) if options.dtype == "auto" else options.dtype,
        "vision_config": vision,
        "text_config": {**text, **vocabulary.text_fields(), **layout.text_fields()},
        "image_processor": image_processor_fields(str(vision["model_type"]), upstream, options),
        "prompt": prompt_fields(options.template, vocabulary.tokenizer, report, eos=vocabulary.eos),
        "image_token_id": vocabulary.size,
        "expert_domains": list(options.expert_domains),
    }
    try:
        return MedMoEConfig.from_json(json.dumps(fields)), vocabulary
    except ConfigError as error:
        raise ConfigError(f"what the checkpoint describes cannot be built: {error}") from error


def _check_fields(upstream: UpstreamConfig, options: Options, report: Report) -> None:
    """Note what is ignored. Raises ConfigError for what would make the converted model another one."""
    projector = upstream.text("image_projector_type")
    if projector != "mlp2x_gelu":
        raise ConfigError(f"config.json: image_projector_type is {projector!r}; only mlp2x_gelu is supported")
    upstream.refuse("mm_use_im_start_end", "mm_use_im_patch_token", why="tokens around images are not supported")
    if upstream.section("lora").flag("lora_enable"):
        raise ConfigError("config.json: lora_enable is set: merge the adapter into its base first")
    moe = upstream.section("moe")
    report.ignored_fields |= {f"moe.{name}": why for name, why in _IGNORED_IN_MOE.items() if name in moe}
    if "auto_map" in upstream:
        report.ignored_fields["auto_map"] = "remote code is never run"
    if options.top_k is not None and moe.integer("top_k_experts") not in (None, options.top_k):
        report.notes.append(f"top-{options.top_k} as asked; config.json says {moe.integer('top_k_experts')}")


def _sharded(tensors: TensorSource) -> bool:
    return len({info.file for info in tensors.tensors.values()}) > 1


def _write_weights(path: Path, steps: list[Step], config: MedMoEConfig, report: Report, progress: Progress) -> None:
    router = RouterFingerprint()
    done, total = 0, sum(step.spec.nbytes for step in steps)
    with TensorWriter(path, [step.spec for step in steps]) as writer:
        for step in steps:
            stored = step.source.read(step.source_name)[: step.spec.shape[0]]
            tensor = stored.to(step.spec.dtype)
            if not _is_finite(tensor):
                raise CheckpointError(f"{step.source_name} holds values that are not finite in {step.spec.dtype}")
            if step.is_gate:
                router.add(step.spec.name, stored.float().contiguous().numpy().tobytes())
            writer.write(step.spec.name, tensor)
            done += step.spec.nbytes
            progress(done, total)
    for source in {id(step.source): step.source for step in steps}.values():
        source.close()
    report.router = _router_facts(router)
    report.sha256[WEIGHTS_FILE] = writer.sha256
    report.source["dtype"] = config.dtype


def _is_finite(tensor: torch.Tensor) -> bool:
    """Return whether both extremes are finite: a NaN is either. Testing each 16-bit value is many times slower."""
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _router_facts(router: RouterFingerprint) -> dict[str, object]:
    """Describe the gates for the report; empty for a dense model."""
    if not router.layers:
        return {}
    equal = router.different == 1
    text = (
        "the gates of all layers are equal, as a frozen router leaves them"
        if equal
        else f"{router.different} different gates in {router.layers} layers: the router was trained with the experts"
    )
    return {"equal": equal, "layers": router.layers, "text": text}
