"""What can go wrong while a stage trains; what is wrong with data is told by medmoe.training.data.errors."""

from medmoe.model.errors import MedMoEError


class TrainingError(MedMoEError):
    """Training cannot go on: the loss is not finite, or a step checkpoint cannot be written or read."""
