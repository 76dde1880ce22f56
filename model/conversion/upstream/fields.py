"""Fields of upstream's config.json that change the model in a way we do not build, or that change nothing at all."""

from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.errors import ConfigError

_NO_DROPS = "no token is ever dropped: upstream's capacity always suffices when it answers"
_IGNORED_IN_MOE = {
    "capacity_factor": _NO_DROPS,
    "eval_capacity_factor": _NO_DROPS,
    "min_capacity": _NO_DROPS,
    "router_aux_loss_coef": "a loss, used in training only",
    "train_modules": "used in training only",
    "ep_size": "how upstream spread the experts over devices",
}


def check_fields(config: UpstreamConfig, options: Options, report: Report) -> None:
    """Note what is ignored. Raises ConfigError for what would make the converted model another one."""
    projector = config.text("image_projector_type")
    if projector != "mlp2x_gelu":
        raise ConfigError(f"config.json: image_projector_type is {projector!r}; only mlp2x_gelu is supported")
    config.refuse("mm_use_im_start_end", "mm_use_im_patch_token", why="tokens around images are not supported")
    if config.section("lora").flag("lora_enable"):
        raise ConfigError("config.json: lora_enable is set: merge the adapter into its base first")
    moe = config.section("moe")
    report.ignored_fields |= {f"moe.{name}": why for name, why in _IGNORED_IN_MOE.items() if name in moe}
    if "auto_map" in config:
        report.ignored_fields["auto_map"] = "remote code is never run"
    if options.top_k is not None and moe.integer("top_k_experts") not in (None, options.top_k):
        report.notes.append(f"top-{options.top_k} as asked; config.json says {moe.integer('top_k_experts')}")
