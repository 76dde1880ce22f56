"""Define the baselines: each function turns a size's recipe into one of the same data and budget.

Only the third stage and the layers it trains differ, so that all of them can start from one checkpoint of the second.
"""

from dataclasses import replace

from medmoe.model.config import MedMoEConfig
from medmoe.training.config import RunConfig
from medmoe.training.recipes.trainable import DENSE_FFNS, EXPERTS, FFNS, GATES

BALANCE_LOSS = 0.01
"""MoE-LLaVA's `router_aux_loss_coef`."""


def dense_sft(run: RunConfig) -> RunConfig:
    """Use no experts: stage 3 trains every FFN, and what the size trains beside experts and FFNs."""
    beside = tuple(group for group in run.moe_tuning.trainable if group not in (EXPERTS, DENSE_FFNS))
    return _baseline(
        run,
        "dense-sft",
        text={"moe_layers": ()},
        router=None,
        moe_tuning=replace(run.moe_tuning, name="dense_tuning", trainable=(FFNS, *beside)),
    )


def moe(run: RunConfig) -> RunConfig:
    """Use MoE-LLaVA's layers: a gate each without bias, the best two experts, no meta expert."""
    text: dict[str, object] = {
        "shared_expert": False,
        "gate_bias": False,
        "num_experts_per_tok": 2,
        "renormalize": True,
    }
    return _learned(run, "moe", text=text)


def moe_without_meta(run: RunConfig) -> RunConfig:
    """Use Med-MoE's domain router and experts without its meta expert."""
    return _baseline(run, "moe-without-meta", text={"shared_expert": False})


def moe_learned_router(run: RunConfig) -> RunConfig:
    """Use Med-MoE with gates that learn from the answers instead of from image modality."""
    return _learned(run, "moe-learned-router", text={})


def _learned(run: RunConfig, suffix: str, *, text: dict[str, object]) -> RunConfig:
    return _baseline(
        run,
        suffix,
        text=text,
        expert_domains=(),
        router=None,
        routing="learned",
        moe_tuning=replace(run.moe_tuning, trainable=(*run.moe_tuning.trainable, GATES), balance_loss=BALANCE_LOSS),
    )


def _baseline(
    run: RunConfig,
    suffix: str,
    *,
    text: dict[str, object],
    expert_domains: tuple[str, ...] | None = None,
    **changes: object,
) -> RunConfig:
    name = f"{run.name}-{suffix}"
    whole = run.architecture
    fields = {
        "name": name,
        "text_config": whole.text_config.model_copy(update=text),
        "expert_domains": whole.expert_domains if expert_domains is None else expert_domains,
    }
    # Copied by way of a dump, so that what does not fit together is refused here.
    architecture = MedMoEConfig.model_validate(whole.model_copy(update=fields).model_dump())
    return replace(run, name=name, architecture=architecture, modality_labels=run.domains, **changes)  # type: ignore[arg-type]
