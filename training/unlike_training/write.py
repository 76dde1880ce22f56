"""Write training_reference.safetensors whole or not at all."""

import os
from dataclasses import fields
from pathlib import Path

from safetensors.torch import save_file

from medmoe.model.unlike_training.reference import TRAINING_REFERENCE_FILE, TrainingReference
from medmoe.model.unlike_training.scorer import ReferenceTensors


def write_reference(directory: Path, reference: TrainingReference, tensors: ReferenceTensors) -> Path:
    """Write the file into a checkpoint's directory and return its path."""
    path = directory / TRAINING_REFERENCE_FILE
    staging = directory / f".{TRAINING_REFERENCE_FILE}.new"
    stored = {field.name: getattr(tensors, field.name).half().contiguous() for field in fields(ReferenceTensors)}
    save_file(stored, staging, metadata=reference.metadata)
    # safetensors makes private files; a checkpoint is read by whichever user serves it.
    staging.chmod(0o644)
    os.replace(staging, path)
    return path
