"""Open what an evaluation asks: a checkpoint in this process, or a running service."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmoe.model.errors import CheckpointError
from medmoe.model.files.calibration import CALIBRATION_FILE, Calibration
from medmoe.model.files.calibration_binding import Dtype
from medmoe.training.evaluation.predict.contextual_predictions import contextual
from medmoe.training.evaluation.predict.predictors import LocalPredictor
from medmoe.training.evaluation.predict.server_predictor import connected
from medmoe.training.evaluation.prediction import Predict
from medmoe.training.evaluation.provenance import CheckpointIdentity

_DTYPE: Dtype = "float32"
"""Number format in which a checkpoint is evaluated."""


@dataclass(kw_only=True, slots=True)
class Answerer:
    """A checkpoint or a service that answers; the identity of a service is known only after it has answered."""

    predict: Predict
    identity: dict[str, Any]
    calibration: Calibration | None = None


@contextmanager
def checkpoint_answerer(
    checkpoint: Path,
    identity: CheckpointIdentity,
    *,
    calibrated: bool,
    contextual_calibration: bool,
    device: str,
    batch_size: int,
    max_tokens: int,
) -> Iterator[Answerer]:
    """Give the checkpoint, computed in this process, with what of its calibration a service would apply.

    Raises CheckpointError, also when `calibrated` asks for a calibration of which nothing applies.
    """
    calibration = Calibration.of_weights(
        checkpoint, weights_sha256=identity.weights_sha256, adapter_sha256=identity.adapter_sha256
    )
    if calibrated and calibration is None:
        raise CheckpointError(f"{checkpoint} has no {CALIBRATION_FILE}; the calibrate command makes one")
    predictor = LocalPredictor.from_checkpoint(checkpoint, device=device, max_tokens=max_tokens, batch_size=batch_size)
    if calibration is not None:
        calibration = calibration.holding(prompt_sha256=predictor.prompt.sha256, dtype=_DTYPE)
        if calibrated and not calibration.label_sets and calibration.answers is None:
            raise CheckpointError(
                f"{checkpoint / CALIBRATION_FILE} has no map that helps this prompt in {_DTYPE}, in which it is "
                f"evaluated; calibrate it with --dtype {_DTYPE}"
            )
    answerer = Answerer(
        predict=predictor.predict,
        identity={"checkpoint": checkpoint.name, **asdict(identity), "device": device},
        calibration=calibration,
    )
    with tempfile.TemporaryDirectory() as folder:
        if contextual_calibration:
            size = predictor.prompt.config.vision_config.image_size
            answerer.predict = contextual(predictor.predict, folder=Path(folder), size=size)
            # Those of labels were fitted to the likelihoods as they are.
            answerer.calibration = None if calibration is None else calibration.of_answers
        yield answerer


@contextmanager
def service_answerer(
    url: str, *, token_file: Path | None, concurrency: int, max_tokens: int, contextual_calibration: bool
) -> Iterator[Answerer]:
    """Give the service at `url`; `token_file` holds the API key."""
    with connected(
        url,
        token_file=token_file,
        concurrency=concurrency,
        max_tokens=max_tokens,
        contextual_calibration=contextual_calibration,
    ) as (predictor, predict):
        answerer = Answerer(predict=predict, identity={})
        yield answerer
        answerer.identity = {"service": url, **predictor.identity}
