"""Print the results of a run on a GPU: figures, their share of the ceilings, and the parts that were left out."""

from collections.abc import Iterable, Sequence
from typing import Any

from medmoe.training.evaluation.report import markdown_table

STEP_TARGET = 1.5
"""Times the floor, StableLM's shape, batch 64."""
REQUESTS_TARGET = 30.0
"""Times the reference, one at a time, 64 clients."""
_LOG_LINES = 12


def report(results: dict[str, Any]) -> str:
    """All tables, and a line for each part that was not done."""
    ceilings = _figures(results, "ceilings")
    sections = [_ceilings(ceilings)]
    sections += [section(results, ceilings) for section in (_decode, _prefill, _parity, _requests, _tuning)]
    if results["dry_run"]:
        sections.insert(0, "DRY RUN on a CPU with tiny shapes: these figures say nothing about any GPU.")
    missing = [part for part in results["parts"] if part["status"] != "done"]
    sections.append("\n".join(_missing(part) for part in missing))
    return "\n\n".join(section for section in sections if section)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Markdown; nothing where there are no rows."""
    if not rows:
        return ""
    heads = list(rows[0])
    return markdown_table.table(heads, ([row[head] for head in heads] for row in rows))


def _ceilings(found: dict[str, Any]) -> str:
    if not found:
        return ""
    return (
        f"{found.get('name', found['device'])}, torch {found['torch']}: copies {found['bandwidth'] / 1e9:.0f} GB/s,"
        f" multiplies {found['dtype']} at {found['multiplication'] / 1e12:.3g} TFLOP/s"
    )


def _decode(results: dict[str, Any], ceilings: dict[str, Any]) -> str:
    rows = []
    timed = [*_rows(results, "steps", "decode"), *_rows(results, "eager", "decode")]
    for part, row in timed:
        floor = row["bytes"]["total"] / ceilings["bandwidth"] if ceilings else None
        rows.append(
            {
                "decode": part["shape"],
                "graphs": "off" if part["name"] == "eager" else "on",
                "batch": str(row["batch"]),
                "context": f"{row['context']:.0f}",
                "experts hit, expected": f"{row['experts_expected']:.2f}",
                "counted": f"{row['experts_counted']:.2f}",
                "GB a step": f"{row['bytes']['total'] / 1e9:.3g}",
                "step ms": f"{row['seconds'] * 1e3:.3g}",
                "floor ms": _times(floor, scale=1e3),
                "x floor": _times(None if floor is None else row["seconds"] / floor),
            }
        )
    engines = [_engine(part) for part, _ in _parts(results, "steps") if "engine" in part["figures"]]
    kernels = [_kernels(part) for part, _ in _parts(results, "steps") if "kernels" in part["figures"]]
    target = f"Target: at most {STEP_TARGET} x floor for stablelm at batch 64." if rows else ""
    small = [
        f"{part['shape']}: no room for keys and values of {', '.join(map(str, figures['too_large']))} sequences"
        for part, figures in _parts(results, "steps")
        if figures.get("too_large")
    ]
    return "\n\n".join(text for text in (table(rows), target, *small, *engines, *kernels) if text)


def _prefill(results: dict[str, Any], ceilings: dict[str, Any]) -> str:
    rows = []
    for part, figures in _parts(results, "steps"):
        if "prefill" not in figures:
            continue
        found, images = figures["prefill"], figures.get("images")
        rate = found["flops"] / found["seconds"]
        rows.append(
            {
                "prefill": part["shape"],
                "prompts": f"{found['prompts']} x {found['tokens'] // found['prompts']}",
                "tokens/s": f"{found['tokens_per_second']:.0f}",
                "TFLOP/s": f"{rate / 1e12:.3g}",
                "of the measured rate": f"{rate / ceilings['multiplication']:.1%}" if ceilings else "-",
                "images/s": f"{images['images'] / images['seconds']:.1f}" if images else "-",
            }
        )
    return table(rows)


def _parity(results: dict[str, Any], _: dict[str, Any]) -> str:
    rows = []
    for part, found in _parts(results, "parity"):
        if not found:
            continue
        broken = [name for name, holds in found["holds"].items() if not holds]
        rows.append(
            {
                "parity": f"{part['shape']}, {part['dtype']}",
                "greedy tokens": f"{found['same_tokens']}/{found['positions']}",
                "worst gap": f"{found['largest_gap']:.1e}",
                "routing": f"{found['same_routing']:.3%}",
                "log-prob error, mean and largest": f"{found['log_prob_mean']:.1e}, {found['log_prob_largest']:.1e}",
                "of the reference in that format": _own(found),
                "different answers": f"{found['different_answers']}/{found['prompts']}",
                "holds": f"no: {', '.join(broken)}" if broken else "yes",
            }
        )
    return table(rows)


def _own(found: dict[str, Any]) -> str:
    if found["reference_log_prob_mean"] is None:
        return "-"
    return (
        f"{found['reference_log_prob_mean']:.1e}, {found['reference_log_prob_largest']:.1e},"
        f" routing {found['reference_same_routing']:.3%}"
    )


def _requests(results: dict[str, Any], _: dict[str, Any]) -> str:
    rows = []
    for part, row in _rows(results, "requests", "engine"):
        alone = part["figures"].get("reference", {}).get("requests_per_second")
        rows.append(
            {
                "requests": part["shape"],
                "clients": str(row["clients"]),
                "requests/s": f"{row['requests_per_second']:.3g}",
                "median s": f"{row['median_latency']:.3g}",
                "tokens each": f"{row['tokens'] / row['requests']:.1f}",
                "reference/s": _times(alone),
                "x reference": _times(None if alone is None else row["requests_per_second"] / alone),
            }
        )
    target = f"Target: at least {REQUESTS_TARGET:.0f} x reference at 64 clients." if rows else ""
    return "\n\n".join(text for text in (table(rows), target) if text)


def _tuning(results: dict[str, Any], _: dict[str, Any]) -> str:
    rows = []
    for part, row in _rows(results, "tuning", "rows"):
        rows.append(
            {
                "experts": part["shape"],
                "tokens": str(row["tokens"]),
                "default us": f"{row['default_seconds'] * 1e6:.1f}",
                "best us": f"{row['best_seconds'] * 1e6:.1f}",
                "default/best": f"{row['default_seconds'] / row['best_seconds']:.2f}",
                "default": _short(row["default"]),
                "best": _short(row["best"]),
                "tried": str(row["tried"]),
            }
        )
    files = [f"Written: {figures['file']}" for _, figures in _parts(results, "tuning") if "file" in figures]
    return "\n\n".join(text for text in (table(rows), *files) if text)


def _short(configuration: dict[str, int]) -> str:
    """`16x64x128 g1 w4 s4`: tile, group, warps, stages."""
    tile = "x".join(str(configuration[f"BLOCK_SIZE_{edge}"]) for edge in "MNK")
    return f"{tile} g{configuration['GROUP_SIZE_M']} w{configuration['num_warps']} s{configuration['num_stages']}"


def _engine(part: dict[str, Any]) -> str:
    facts = part["figures"]["engine"]
    return f"{part['shape']}: " + ", ".join(f"{name} {value}" for name, value in facts.items())


def _kernels(part: dict[str, Any]) -> str:
    found = part["figures"]["kernels"]
    head = f"{part['shape']}, batch {found['batch']}: the GPU works {found['seconds'] * 1e3:.3g} ms of a step:"
    rows = (f"    {row['seconds'] * 1e3:7.3f} ms  {row['kernel']}" for row in found["longest"])
    return "\n".join([head, *rows])


def _missing(part: dict[str, Any]) -> str:
    line = f"{part['label']}: {part['status']} ({part['reason']})"
    return "\n".join([line, *(f"    {told}" for told in part.get("log", [])[-_LOG_LINES:])])


def _times(value: float | None, *, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:.3g}"


def _figures(results: dict[str, Any], name: str) -> dict[str, Any]:
    return next((figures for _, figures in _parts(results, name)), {})


def _parts(results: dict[str, Any], name: str) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    return ((part, part["figures"]) for part in results["parts"] if part["name"] == name)


def _rows(results: dict[str, Any], name: str, key: str) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    return ((part, row) for part, figures in _parts(results, name) for row in figures.get(key, []))
