"""Remove all images of test splits from a run, so that it is scored on images that it has not seen.

VQA-RAD's official splits share all but one of the test images; published figures are on those. Such a run stands beside
the official one, it does not replace it: here it loses 1,059 of the 1,793 questions that VQA-RAD trains on.
"""

from dataclasses import replace

from medmoe.training.config import DataConfig, RunConfig, StageConfig


def image_disjoint(run: RunConfig, *datasets: str) -> RunConfig:
    """Return `run` without the test images of `datasets` in any stage, router, tokenizer or other dataset."""

    def entries(data: tuple[DataConfig, ...]) -> tuple[DataConfig, ...]:
        return tuple(replace(entry, without_images_of=datasets) if entry.split == "train" else entry for entry in data)

    def stage(config: StageConfig) -> StageConfig:
        return replace(config, data=entries(config.data))

    name = f"{run.name}-image-disjoint"
    return replace(
        run,
        name=name,
        architecture=run.architecture.model_copy(update={"name": name}),
        alignment=stage(run.alignment),
        instruction_tuning=stage(run.instruction_tuning),
        moe_tuning=stage(run.moe_tuning),
        router=None if run.router is None else replace(run.router, data=entries(run.router.data)),
    )
