"""`medmoe stats`: show which experts a service's tokens went to."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import typer

from medmoe.client.answers.router_stats import LayerLoad, RouterStats
from medmoe.client.commands.connection import JsonOption, ServiceOptions, with_option_groups
from medmoe.client.commands.terminal import as_json, safe, table


@with_option_groups()
def stats(
    window: Annotated[
        int | None, typer.Option(min=1, help="Seconds to look back; by default everything since the start.")
    ] = None,
    by: Annotated[
        Literal["kind", "route", "modality"] | None,
        typer.Option(help="Print a table for each kind of token, route or modality."),
    ] = None,
    json_: JsonOption = False,
    *,
    service: ServiceOptions,
) -> None:
    """Print each expert's share of the tokens of each MoE layer, in percent.

    Columns: entropy is 1 if all experts take equal shares and 0 if one takes all tokens. cv is the coefficient of
    variation of the shares: 0 if they are equal. dead lists the experts that took no token. drift is the Jensen-Shannon
    divergence, in bits, of the shares from those of the checkpoint's reference data: 0 if they are the same, 1 at most;
    it is shown if the checkpoint has a reference.
    """
    with service.client() as client:
        found = client.router_stats(window=window)
    if json_:
        typer.echo(as_json(found))
        return
    typer.echo(safe(f"{found.model}: {found.requests} requests since {found.since}"))
    if by is None:
        typer.echo(_table(found.overall, found.expert_domains, drift=_drift(found)))
        return
    parts: Mapping[str, tuple[LayerLoad, ...]] = getattr(found, f"by_{by}")
    for name, layers in parts.items():
        typer.echo(f"\n{safe(name)}\n{_table(layers, found.expert_domains)}")
    if not parts:
        typer.echo("nothing was counted")


def _table(layers: Sequence[LayerLoad], domains: Sequence[str], *, drift: Mapping[int, str] | None = None) -> str:
    experts = max((len(layer.experts) for layer in layers), default=0)
    names = [domains[number] if number < len(domains) else str(number) for number in range(experts)]
    headers = ["layer", "tokens", *names, "entropy", "cv", "dead", *(["drift"] if drift else [])]
    rows = [
        [
            str(layer.layer),
            str(layer.tokens),
            *(f"{100 * one.load_share:.1f}" for one in layer.experts),
            _number(layer.entropy),
            _number(layer.cv),
            ",".join(map(str, layer.dead_experts)) or "-",
            *([drift.get(layer.layer, "-")] if drift else []),
        ]
        for layer in layers
    ]
    return table(headers, rows)


def _drift(found: RouterStats) -> dict[int, str]:
    """Return the divergence of each layer in bits; empty without a reference."""
    layers = () if found.drift is None else found.drift.layers
    return {layer.layer: _number(layer.divergence) for layer in layers}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
