"""Define the three dashboards: python docker/grafana/dashboards.py writes dashboards/*.json, which Grafana reads.

A test compares the files with what is said here, and every name in a query with what the service exports. Queries sum
over instances unless an instance is what one wants to see.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from panels import Json, dashboard, history, lines, matrix, number

DIRECTORY = Path(__file__).parent / "dashboards"
_RATE = "$__rate_interval"
_ROUTES = 'route=~"/v1/.+"'
_JOB = 'job="medmoe"'
_MODEL = 'model="$model"'
"""The model that is chosen at the top: while a checkpoint is changed two have experts."""


def _quantiles(
    name: str, *, by: str = "", where: str = "", levels: tuple[float, ...] = (0.5, 0.9, 0.99)
) -> list[tuple[str, str]]:
    labels = ", ".join(filter(None, ["le", by]))
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({level}, sum by ({labels}) (rate({name}_bucket{{{where}}}[{_RATE}])))",
            f"p{level * 100:g}{legend}",
        )
        for level in levels
    ]


def _mean(name: str) -> str:
    return f"sum(rate({name}_sum[{_RATE}])) / sum(rate({name}_count[{_RATE}]))"


def service() -> Json:
    return dashboard(
        "medmoe-service",
        "Med-MoE: service",
        [
            [
                number(
                    "Instances ready", f"sum(medmoe_ready{{{_JOB}}}) or vector(0)", note="Answering, of those below"
                ),
                number("Instances up", f"sum(up{{{_JOB}}}) or vector(0)", note="Whose metrics can be read"),
                number("Requests a second", "sum(job:medmoe_requests:rate5m) or vector(0)", unit="reqps"),
                number(
                    "Failing (5xx)",
                    "max(job:medmoe_request_failures:ratio_rate5m) or vector(0)",
                    unit="percentunit",
                    bad=[(0.01, "orange"), (0.05, "red")],
                ),
                number(
                    "Fullest instance",
                    "max(instance:medmoe_requests_in_flight:ratio)",
                    unit="percentunit",
                    note="Requests inside over those that may be; at 100 % the next gets 429",
                    bad=[(0.5, "orange"), (0.8, "red")],
                ),
                number("Alerts", 'count(ALERTS{alertstate="firing"}) or vector(0)', bad=[(1, "red")]),
            ],
            [
                lines(
                    "Requests by route and status",
                    (
                        f"sum by (route, status) (rate(medmoe_requests_total{{{_ROUTES}}}[{_RATE}]))",
                        "{{route}} {{status}}",
                    ),
                    unit="reqps",
                ),
                lines(
                    "Time to the end of the answer",
                    *_quantiles("medmoe_request_duration_seconds", where=_ROUTES),
                    unit="s",
                    note="Quantiles are read off buckets that double: between two of them they are a guess",
                ),
            ],
            [
                lines(
                    "Where the time goes (90 %)",
                    *_quantiles("medmoe_stage_duration_seconds", by="stage", levels=(0.9,)),
                    unit="s",
                    note="fetch: by URL or of a PACS; image: decoding; queue: wait for a slot; engine: generation",
                ),
                lines(
                    "Requests inside, and how many may be",
                    ("medmoe_requests_in_flight", "{{instance}}"),
                    ("medmoe_requests_in_flight_limit", "limit of {{instance}}"),
                ),
            ],
            [
                lines(
                    "Refused, by reason",
                    (f"sum by (reason) (rate(medmoe_rejections_total[{_RATE}]))", "{{reason}}"),
                    unit="reqps",
                    note="overloaded: full; rate_limited: one caller; decoder_died, image_too_costly: bad images",
                ),
                lines(
                    "Engines replaced in ten minutes, and requests kept from them",
                    (
                        "sum by (instance, model, outcome) (increase(medmoe_engine_restarts_total[10m]))",
                        "{{outcome}} {{model}} {{instance}}",
                    ),
                    ("medmoe_quarantine_requests", "{{kind}} {{instance}}"),
                ),
            ],
            [
                lines(
                    "Images, decoded or kept",
                    (f"sum by (source) (rate(medmoe_images_total[{_RATE}]))", "{{source}}"),
                    unit="reqps",
                    note="kept: decoded for a question before; MEDMOE_IMAGE_CACHE_ENTRIES says how many wait",
                ),
                lines(
                    "Memory of the front process",
                    (f"process_resident_memory_bytes{{{_JOB}}}", "{{instance}}"),
                    unit="bytes",
                    note="Without the engine's and the decoders' processes",
                ),
                lines(
                    "File descriptors",
                    (f"process_open_fds{{{_JOB}}} / process_max_fds", "{{instance}}"),
                    unit="percentunit",
                ),
            ],
        ],
        note="Research software, not a medical device. What callers meet.",
    )


def engine() -> Json:
    return dashboard(
        "medmoe-engine",
        "Med-MoE: vLLM engine",
        [
            [
                lines(
                    "Requests in the engine",
                    ("sum(vllm:num_requests_running)", "running"),
                    ("sum(vllm:num_requests_waiting)", "waiting"),
                ),
                lines(
                    "Tokens a second",
                    (f"sum(rate(vllm:prompt_tokens_total[{_RATE}]))", "read"),
                    (f"sum(rate(vllm:generation_tokens_total[{_RATE}]))", "written"),
                ),
            ],
            [
                lines("Time to the first token", *_quantiles("vllm:time_to_first_token_seconds"), unit="s"),
                lines("Time between tokens", *_quantiles("vllm:inter_token_latency_seconds"), unit="s"),
            ],
            [
                lines(
                    "Time of a request, mean",
                    (_mean("vllm:request_queue_time_seconds"), "waiting"),
                    (_mean("vllm:request_prefill_time_seconds"), "reading"),
                    (_mean("vllm:request_decode_time_seconds"), "writing"),
                    unit="s",
                ),
                lines("Time of a request", *_quantiles("vllm:e2e_request_latency_seconds"), unit="s"),
            ],
            [
                lines(
                    "Key-value cache in use", ("vllm:kv_cache_usage_perc", "{{instance}}"), unit="percentunit", top=1
                ),
                lines(
                    "Prompt tokens found in the prefix cache",
                    (
                        f"sum(rate(vllm:prefix_cache_hits_total[{_RATE}]))"
                        f" / sum(rate(vllm:prefix_cache_queries_total[{_RATE}]))",
                        "share",
                    ),
                    unit="percentunit",
                    top=1,
                ),
            ],
            [
                lines(
                    "How requests end",
                    (f"sum by (finished_reason) (rate(vllm:request_success_total[{_RATE}]))", "{{finished_reason}}"),
                    unit="reqps",
                ),
                lines(
                    "Interrupted for want of memory",
                    (f"sum(rate(vllm:num_preemptions_total[{_RATE}]))", "preemptions"),
                    note="Each is computed again from its beginning",
                ),
            ],
            [
                lines("Tokens in one step, mean", (_mean("vllm:iteration_tokens_total"), "tokens")),
                lines("Tokens of a prompt, mean", (_mean("vllm:request_prompt_tokens"), "tokens")),
            ],
        ],
        note="vLLM's own series, as it exports them.",
    )


def experts() -> Json:
    share = f"job_model_layer_expert:medmoe_expert_load:ratio1h{{{_MODEL}}}"
    by_modality = f"job_model_layer_expert_modality:medmoe_expert_load:ratio1h{{{_MODEL}}}"
    evenness = f"job_model_layer:medmoe_expert_evenness:ratio1h{{{_MODEL}}}"
    return dashboard(
        "medmoe-experts",
        "Med-MoE: experts",
        [
            [
                number(
                    "Tokens routed in the last hour",
                    f"sum(job_model_layer:medmoe_expert_tokens:increase1h{{{_MODEL}}})",
                ),
                number(
                    "Experts without tokens",
                    f"count({share} == 0) or vector(0)",
                    note="Of all layers, in the last hour; 0 also while there were no tokens at all",
                    bad=[(1, "orange")],
                ),
                number("Least even layer", f"min({evenness})", unit="percentunit"),
                number(
                    "Furthest from the reference",
                    f"max(medmoe_routing_drift{{{_MODEL}}})",
                    note="Bits, 0 to 1; nothing without routing_reference.json in the checkpoint",
                    bad=[(0.05, "orange"), (0.1, "red")],
                ),
            ],
            [
                matrix(
                    "Load share, layer by expert, last hour",
                    f"sum by (layer, expert) ({share})",
                    row="layer",
                    column="expert",
                    note="A row sums to 100 %. Which expert learnt what, the checkpoint's expert_domains say",
                ),
                history(
                    "Load share over time", f"sum by (layer, expert) ({share})", "layer {{layer}}, expert {{expert}}"
                ),
            ],
            [
                matrix(
                    "By stated modality, mean of the layers",
                    f"avg by (modality, expert) ({by_modality})",
                    row="modality",
                    column="expert",
                    note="Requests that state no modality count as unstated",
                ),
                matrix(
                    "By stated modality and layer",
                    f"label_join(sum by (modality, layer, expert) ({by_modality}),"
                    ' "place", ", layer ", "modality", "layer")',
                    row="place",
                    column="expert",
                ),
            ],
            [
                lines(
                    "Tokens a second, by kind",
                    (f"sum by (kind) (rate(medmoe_expert_tokens_total{{{_MODEL}}}[{_RATE}]))", "{{kind}}"),
                    note="Counted once in each MoE layer and for each expert chosen",
                ),
                lines(
                    "Tokens a second, by stated modality",
                    (
                        f"sum by (modality) (rate(medmoe_expert_tokens_by_modality_total{{{_MODEL}}}[{_RATE}]))",
                        "{{modality}}",
                    ),
                ),
            ],
            [
                lines(
                    "Evenness of each layer",
                    (evenness, "layer {{layer}}"),
                    unit="percentunit",
                    top=1,
                    note="Entropy of the shares over its maximum: 100 % is even, 0 is one expert alone",
                ),
                lines(
                    "Experts below 1 %",
                    (f"count by (layer) ({share} < 0.01) or 0 * count by (layer) ({share})", "layer {{layer}}"),
                ),
            ],
            [
                lines(
                    "Drift from the reference",
                    (f"medmoe_routing_drift{{{_MODEL}}}", "layer {{layer}}, {{instance}}"),
                    note="Jensen-Shannon divergence in bits, last hour; nothing without routing_reference.json",
                ),
                lines(
                    "Prompt tokens behind the drift",
                    (f"medmoe_routing_drift_tokens{{{_MODEL}}}", "layer {{layer}}, {{instance}}"),
                ),
            ],
        ],
        note="Where the tokens of one model go, over all instances.",
        choices={"model": "label_values(medmoe_expert_tokens_total, model)"},
    )


def files() -> dict[str, str]:
    """Return the content of each dashboard by file name."""
    made = {"service": service(), "engine": engine(), "experts": experts()}
    return {f"{name}.json": json.dumps(board, indent=1) + "\n" for name, board in made.items()}


if __name__ == "__main__":
    for name, text in files().items():
        (DIRECTORY / name).write_text(text)
