"""Score how unlike the training images an image is, by the vision tower's features.

Four parts, each of which has a blind spot that another has not: the distance to the nearest training images, in
proportion to how far these lie from one another (Breunig et al. 2000); what the principal components of the training
images leave of an image's mean features and of their standard deviation (as in Wang et al. 2022); and a linear
discriminant against drawn images (outlier exposure, Hendrycks et al. 2019). Each is standardised on held-out images;
the score is the length of the vector of what exceeds the usual.

Shape letters: N images, P patches, C width of the tower, K components, R training images, J components for distances.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.unlike_training.reference import TRAINING_REFERENCE_FILE, TrainingReference

PARTS = 4
SMALLEST = 1e-6
"""Below it no logarithm is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceTensors:
    """The tensors of training_reference.safetensors, by their names there; float16 in the file."""

    mean_centre: torch.Tensor
    """[C]: subtracted from an image's mean features; they are then divided by `mean_scale`."""
    mean_scale: torch.Tensor
    mean_components: torch.Tensor
    """[C, K]: orthonormal, the largest variance first."""
    std_centre: torch.Tensor
    """[C]: as `mean_centre`, for the standard deviation over the patches."""
    std_scale: torch.Tensor
    std_components: torch.Tensor
    whitening: torch.Tensor
    """[J]: factors of the first J mean components, in which distances are measured."""
    images: torch.Tensor
    """[R, J]: the training images."""
    spacing: torch.Tensor
    """[R]: mean distance of each training image to its nearest ones."""
    drawn: torch.Tensor
    """[C + 1]: weights of the discriminant against drawn images, then its bias."""
    part_centre: torch.Tensor
    """[4]: subtracted from the parts; they are then divided by `part_scale`."""
    part_scale: torch.Tensor


def pooled(features_NPC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation over the patches, each [N, C] in float32."""
    features_NPC = features_NPC.float()
    mean_NC = features_NPC.mean(dim=1)
    # Tensor.std takes several times as long over this axis.
    return mean_NC, (features_NPC - mean_NC[:, None]).square().mean(dim=1).sqrt()


class UnlikeTraining:
    """Callable: features [N, P, C] to scores [N], float32."""

    def __init__(self, reference: TrainingReference, tensors: ReferenceTensors) -> None:
        self.reference = reference
        self.tensors = tensors

    @classmethod
    def from_directory(cls, directory: Path, config: MedMoEConfig) -> Self | None:
        """Return the checkpoint's scorer; None where it has no reference.

        Raises as `TrainingReference.from_directory` does, and CheckpointError when the tensors are damaged.
        """
        reference = TrainingReference.from_directory(directory, config)
        if reference is None:
            return None
        path = directory / TRAINING_REFERENCE_FILE
        try:
            stored = load_file(path)
            tensors = ReferenceTensors(**{field.name: stored[field.name].float() for field in fields(ReferenceTensors)})
        except (OSError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read; copy the checkpoint again") from error
        _check(tensors, width=config.vision_config.hidden_size, neighbours=reference.neighbours, path=path)
        return cls(reference, tensors)

    def to(self, device: torch.device) -> Self:
        """Move the tensors to `device`; return self."""
        if self.tensors.images.device != device:
            moved = {field.name: getattr(self.tensors, field.name).to(device) for field in fields(ReferenceTensors)}
            self.tensors = ReferenceTensors(**moved)
        return self

    @torch.no_grad()
    def __call__(self, features_NPC: torch.Tensor) -> torch.Tensor:
        return self.score(*pooled(features_NPC))

    def score(self, mean_NC: torch.Tensor, std_NC: torch.Tensor) -> torch.Tensor:
        """Return the scores [N] of pooled features."""
        tensors = self.tensors
        excess_NQ = (parts(tensors, mean_NC, std_NC, self.reference.neighbours) - tensors.part_centre).relu()
        return (excess_NQ / tensors.part_scale).square().sum(dim=-1).sqrt()


def parts(tensors: ReferenceTensors, mean_NC: torch.Tensor, std_NC: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Return the four parts of each image before they are standardised, [N, 4]."""
    mean_NC = (mean_NC - tensors.mean_centre) / tensors.mean_scale
    std_NC = (std_NC - tensors.std_centre) / tensors.std_scale
    projected_NJ = project(mean_NC, tensors)
    distances_NR = distances(projected_NJ, tensors.images)
    nearest = distances_NR.topk(min(neighbours, len(tensors.images)), largest=False)
    return torch.stack(
        [
            _log(nearest.values.mean(dim=-1)) - _log(tensors.spacing[nearest.indices].mean(dim=-1)) / 2,
            _log(_residual(mean_NC, tensors.mean_components)),
            _log(_residual(std_NC, tensors.std_components)),
            mean_NC @ tensors.drawn[:-1] + tensors.drawn[-1],
        ],
        dim=-1,
    )


def project(mean_NC: torch.Tensor, tensors: ReferenceTensors) -> torch.Tensor:
    """Return standardised mean features in the space of distances, [N, J]."""
    return mean_NC @ tensors.mean_components[:, : len(tensors.whitening)] * tensors.whitening


def distances(some_NJ: torch.Tensor, images_RJ: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean distances [N, R], by the direct formula: products lose the digits of small ones."""
    return torch.cdist(some_NJ, images_RJ, compute_mode="donot_use_mm_for_euclid_dist")


def _residual(x_NC: torch.Tensor, components_CK: torch.Tensor) -> torch.Tensor:
    """Return the length of what the components leave of each row, [N]."""
    length_N: torch.Tensor = (x_NC - x_NC @ components_CK @ components_CK.T).norm(dim=-1)
    return length_N


def _log(values: torch.Tensor) -> torch.Tensor:
    return values.clamp_min(SMALLEST).log()


def _check(tensors: ReferenceTensors, *, width: int, neighbours: int, path: Path) -> None:
    """Raise CheckpointError for tensors of wrong shapes or with values that are not finite."""
    kept, used, images = tensors.mean_components.shape[-1], len(tensors.whitening), len(tensors.images)
    wanted = {
        **dict.fromkeys(("mean_centre", "mean_scale", "std_centre", "std_scale"), (width,)),
        "mean_components": (width, kept),
        "std_components": (width, tensors.std_components.shape[-1]),
        "images": (images, used),
        "spacing": (images,),
        "drawn": (width + 1,),
        **dict.fromkeys(("part_centre", "part_scale"), (PARTS,)),
    }
    if used > kept or images < neighbours:
        raise CheckpointError(f"{path} holds fewer components or images than it uses")
    for name, shape in wanted.items():
        tensor: torch.Tensor = getattr(tensors, name)
        if tuple(tensor.shape) != shape or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path} does not fit a vision tower of width {width}: {name}")
