"""An upstream checkpoint directory to one of ours, in one pass and in little memory.

Everything is decided from headers and config.json before the first weight is read; then each tensor is read, checked
and written once. The target appears whole or not at all.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from medmoe.model.checkpoint.staging import staged_directory
from medmoe.model.checkpoint.tensor_writer import TensorWriter
from medmoe.model.checkpoint.tokenizer_files import write_tokenizer
from medmoe.model.config import CONFIG_FILE, WEIGHTS_FILE, MedMoEConfig
from medmoe.model.conversion.model_card import model_card
from medmoe.model.conversion.moe_layout import moe_layout
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.plan import Step, Tower, account_for_the_rest, most_common_dtype, plan_steps
from medmoe.model.conversion.report import REPORT_FILE, Report
from medmoe.model.conversion.router_fingerprint import RouterFingerprint
from medmoe.model.conversion.source_files import contained_file, find_weights
from medmoe.model.conversion.target import check_space, check_target
from medmoe.model.conversion.tensor_source import TensorSource
from medmoe.model.conversion.text_backbone import find_backbone, text_fields
from medmoe.model.conversion.tokenizer_source import read_tokenizer
from medmoe.model.conversion.tower_directory import find_tower
from medmoe.model.conversion.upstream_config import UpstreamConfig
from medmoe.model.conversion.upstream_fields import check_fields
from medmoe.model.conversion.verification import check_copies, check_duplicate
from medmoe.model.conversion.vision import image_processor_fields, vision_fields
from medmoe.model.conversion.vocabulary import Vocabulary, build_vocabulary
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.licence import CARD_FILE, licence_file, stated_licence
from medmoe.model.prompt import Prompt

Progress = Callable[[int, int], None]
"""Called after each tensor with the bytes written so far and in all."""
# Vicuna-v1's sentence, part of every prompt that these checkpoints were trained with (conversation.py). Upstream
# encodes everything before the image in one piece, so that it stays one field.
_BEFORE_IMAGE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: "
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def convert(source: Path, target: Path, options: Options, *, progress: Progress = lambda done, total: None) -> Report:
    """Write `target` from the upstream directory `source` and return what was done with each tensor.

    Raises ConfigError for a checkpoint that this build cannot represent or whose config.json disagrees with its
    tensors, CheckpointError for files that are damaged, incomplete or not to be trusted, or a target in the way.
    """
    check_target(source, target, options)
    files = find_weights(source)
    upstream = UpstreamConfig.from_directory(source)
    tensors = TensorSource(files)
    report = Report(ignored_files=dict(files.ignored))
    if options.verify:
        check_duplicate(tensors, files.duplicate)
        report.notes.append(f"{files.names} and the duplicate .bin hold the same values")
    tower, tower_config = find_tower(tensors, options)
    config, vocabulary = _configuration(source, target, upstream, tensors, tower, tower_config, options, report)
    steps = plan_steps(config, tensors, tower, report)
    copies = account_for_the_rest(config, tensors, tower, report, video="mm_video_tower" in upstream)
    check_space(target, nbytes=sum(step.spec.nbytes for step in steps))
    check_copies(tensors, copies)
    report.tied.update(copies)
    for part in ("vision_tower", "projector", "language_model"):
        sizes = [torch.Size(step.spec.shape).numel() for step in steps if step.spec.name.startswith(f"{part}.")]
        report.parameters[part] = sum(sizes)
    with staged_directory(target) as staging:
        _write_weights(staging / WEIGHTS_FILE, steps, config, report, progress)
        (staging / CONFIG_FILE).write_text(config.to_json())
        write_tokenizer(vocabulary.tokenizer, staging, config=config)
        # Whoever loads the result refuses what this refuses.
        Prompt.from_directory(staging, MedMoEConfig.from_directory(staging))
        (staging / REPORT_FILE).write_text(report.to_json())
        (staging / CARD_FILE).write_text(model_card(config, report, licence=stated_licence(source)))
        if licence := licence_file(source):
            shutil.copyfile(contained_file(source, licence.name, named_by="the directory"), staging / licence.name)
    return report


def _configuration(
    source: Path,
    target: Path,
    upstream: UpstreamConfig,
    tensors: TensorSource,
    tower: Tower,
    tower_config: UpstreamConfig | None,
    options: Options,
    report: Report,
) -> tuple[MedMoEConfig, Vocabulary]:
    shapes = tensors.shapes
    backbone = find_backbone(shapes, upstream)
    layout = moe_layout(shapes, upstream, top_k=options.top_k)
    check_fields(upstream, options, report)
    report.source = {
        "family": layout.family,
        "backbone": backbone,
        "weights": "shards" if _sharded(tensors) else "file",
    }
    text = text_fields(backbone, shapes, upstream, report)
    vocabulary = build_vocabulary(
        read_tokenizer(source), backbone, upstream, options, report, rows=shapes["model.embed_tokens.weight"][0]
    )
    vision = vision_fields(tower.shapes, upstream, options, report, tower_config=tower_config)
    name = options.name or (target.name if _NAME.fullmatch(target.name) else "medmoe")
    fields = {
        "name": name,
        "dtype": most_common_dtype(tensors) if options.dtype == "auto" else options.dtype,
        "vision_config": vision,
        "text_config": {**text, **vocabulary.text_fields(), **layout.text_fields()},
        "image_processor": image_processor_fields(str(vision["model_type"]), upstream, options),
        "prompt": {"system": "", "user": _BEFORE_IMAGE, "separator": "\n", "assistant": " ASSISTANT:"},
        "image_token_id": vocabulary.size,
        "expert_domains": list(options.expert_domains),
    }
    try:
        return MedMoEConfig.from_json(json.dumps(fields)), vocabulary
    except ConfigError as error:
        raise ConfigError(f"what {source} describes cannot be built: {error}") from error


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
                router.add(step.spec.name, stored)
            writer.write(step.spec.name, tensor)
            done += step.spec.nbytes
            progress(done, total)
    for source in {id(step.source): step.source for step in steps}.values():
        source.close()
    report.router = router.result()
    report.sha256[WEIGHTS_FILE] = writer.sha256
    report.source["dtype"] = config.dtype


def _is_finite(tensor: torch.Tensor) -> bool:
    """Both extremes are numbers: NaN counts as either. Many times faster on 16-bit floats than testing each value."""
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))
