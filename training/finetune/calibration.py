"""Calibrate a finetuned checkpoint on its val split."""

from collections.abc import Sequence
from pathlib import Path

from medmoe.model.files.calibration import CALIBRATION_FILE, Calibration
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.calibration.calibrator import Calibrator, only_helpful
from medmoe.training.evaluation.predict.predictors import LocalPredictor, predict_in_formats, served_formats
from medmoe.training.evaluation.prediction import Prediction, by_id
from medmoe.training.evaluation.provenance import CheckpointIdentity
from medmoe.training.feature_cache import FeatureCache


def write_calibration(
    directory: Path,
    val: Sequence[Sample],
    predictions: Sequence[Prediction],
    *,
    model: MedMoE,
    features: FeatureCache,
    seed: int,
) -> Calibration | None:
    """Fit and write a calibration for each kind of sample that val has enough of and that it helps; return it.

    `predictions` are the model's in float32. None where nothing is written.
    """
    calibrator = Calibrator(seed=seed)
    kinds = [[sample for sample in val if sample.kind == kind] for kind in ("classification", "vqa")]
    enough = [sample for samples in kinds if samples and calibrator.is_enough(samples) for sample in samples]
    if not enough:
        return None
    identity = CheckpointIdentity.of(directory)
    prompt = Prompt.from_directory(directory, model.config)
    predictor = LocalPredictor(model, prompt=prompt, features=features)
    others = [dtype for dtype in served_formats("cpu") if dtype != "float32"]
    found = only_helpful(
        calibrator(
            enough,
            predictions={
                "float32": by_id(predictions),
                **predict_in_formats(predictor, enough, dtypes=others),
            },
            split="val",
            weights_sha256=identity.weights_sha256,
            adapter_sha256=identity.adapter_sha256,
            prompt_sha256=prompt.sha256,
        )
    )
    if found.classification is None and found.answers is None:
        return None
    write_atomically(directory / CALIBRATION_FILE, found.to_json())
    return found
