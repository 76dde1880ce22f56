"""Define the papers' stages as functions of what differs between sizes: data, epochs, learning rate, batch.

Which parameters a stage trains is the same for every size.
"""

from dataclasses import replace
from typing import TypedDict, Unpack

from medmoe.training.config import DataConfig, Optimizer, RouterConfig, RouterSolver, StageConfig
from medmoe.training.recipes.trainable import LANGUAGE_MODEL, PROJECTOR, MoETuningMode, moe_trainable

Data = tuple[DataConfig, ...]


class StageOptions(TypedDict, total=False):
    """Fields of StageConfig that a size may choose for a stage; their defaults are upstream's."""

    weight_decay: float
    warmup_ratio: float
    pack: int
    group_by_length: bool
    dropout: float
    optimizer: Optimizer


def alignment(
    data: Data,
    *,
    epochs: float,
    batch_size: int = 32,
    trainable: tuple[str, ...] = (PROJECTOR,),
    **options: Unpack[StageOptions],
) -> StageConfig:
    """Return stage 1, alignment on captions. The paper trains the projector alone, from a pretrained language model."""
    return StageConfig(
        name="alignment",
        data=data,
        trainable=trainable,
        epochs=epochs,
        learning_rate=1e-3,
        batch_size=batch_size,
        **options,
    )


def instruction_tuning(
    data: Data, *, epochs: float, learning_rate: float, batch_size: int = 32, **options: Unpack[StageOptions]
) -> StageConfig:
    """Return stage 2, questions and answers: language model and projector are trained, FFNs still dense."""
    return StageConfig(
        name="instruction_tuning",
        data=data,
        trainable=(PROJECTOR, LANGUAGE_MODEL),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        **options,
    )


def router(
    data: Data,
    *,
    held_out: Data,
    domains: tuple[str, ...],
    per_domain: int,
    solver: RouterSolver = "adam",
    l2: float = 0.0,
) -> RouterConfig:
    """Return the modality classifier that becomes every MoE layer's frozen gate.

    Ten epochs of Adam at 1e-3 are upstream's, on features whose scale leaves it far from converged.
    """
    return RouterConfig(data=data, held_out=held_out, domains=domains, per_domain=per_domain, solver=solver, l2=l2)


def moe_tuning(
    data: Data,
    *,
    epochs: float,
    learning_rate: float,
    batch_size: int = 32,
    mode: MoETuningMode = "paper",
    **options: Unpack[StageOptions],
) -> StageConfig:
    """Return stage 3: domain experts and meta expert are trained; in upstream's mode dense FFNs and projector too."""
    return StageConfig(
        name="moe_tuning",
        data=data,
        trainable=moe_trainable(mode),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        **options,
    )


def packed(stage: StageConfig) -> StageConfig:
    """Pack up to eight questions on an image into one sequence: about twice as fast where images have several.

    `batch_size` then counts such sequences. On the tiny model, steps of 16 of them learnt less from the same questions
    than steps of 4.
    """
    return replace(stage, pack=8)
