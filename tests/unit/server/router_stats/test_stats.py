"""Router statistics against counts made by hand."""

import math

import numpy as np
import pytest

from medmoe.server.errors import InvalidField
from medmoe.server.router_stats.stats import RouterStats
from tests.support.checkpoints.tiny import tiny_config

IMAGE = 3
PROMPT = (1, IMAGE, 50, 51)
"""One word, the image (4 tokens once expanded), two words: 7 rows. One more row for the answer's first token."""
CHOSEN_0 = [0, 1, 1, 1, 2, 0, 0, 3]
CHOSEN_2 = [1] * 8


def routed() -> np.ndarray:
    experts = np.zeros((8, 3, 1), dtype=np.int16)
    experts[:, 0, 0], experts[:, 2, 0] = CHOSEN_0, CHOSEN_2
    return experts


@pytest.fixture
def stats() -> RouterStats:
    return RouterStats(tiny_config())


def test_kinds_are_told_from_the_position_of_the_image(stats: RouterStats) -> None:
    counts = stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7)
    layer_0, layer_2 = stats.request_report(counts).layers
    assert (layer_0.layer, layer_2.layer) == (0, 2)
    assert layer_0.image == (0, 3, 1, 0)
    assert layer_0.question == (3, 0, 0, 0)
    assert layer_0.answer == (0, 0, 0, 1)
    assert (layer_2.image, layer_2.question, layer_2.answer) == ((0, 4, 0, 0), (0, 3, 0, 0), (0, 1, 0, 0))


def test_the_report_has_share_entropy_cv_and_dead_experts(stats: RouterStats) -> None:
    stats.add(stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7), route="vqa")
    layer_0, layer_2 = stats.report().overall
    assert [expert.tokens for expert in layer_0.experts] == [3, 3, 1, 1]
    assert [expert.load_share for expert in layer_0.experts] == [0.375, 0.375, 0.125, 0.125]
    assert layer_0.entropy == pytest.approx(-(0.75 * math.log(0.375) + 0.25 * math.log(0.125)) / math.log(4))
    assert layer_0.cv == pytest.approx(0.5)
    assert layer_0.dead_experts == ()
    assert (layer_2.entropy, layer_2.dead_experts) == (0.0, (0, 2, 3))
    assert layer_2.cv == pytest.approx(math.sqrt(3))
    assert [expert.domain for expert in layer_2.experts] == ["CT", "MRI", "X-ray", "pathology"]


def test_rows_before_the_first_are_left_out(stats: RouterStats) -> None:
    counts = stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7, first_row=7)
    assert counts.sum() == 2
    assert stats.request_report(counts).layers[0].answer == (0, 0, 0, 1)


def test_routes_are_kept_apart_and_summed(stats: RouterStats) -> None:
    counts = stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7)
    for route in ("vqa", "vqa", "classify"):
        stats.add(counts, route=route)
    report = stats.report()
    assert report.requests == 3
    assert (report.by_route["vqa"][0].tokens, report.by_route["classify"][0].tokens) == (16, 8)
    assert report.overall[0].tokens == 24
    assert sum(tokens for *_, tokens in stats.tokens()) == 48


def test_modalities_are_kept_apart_under_the_checkpoints_spelling(stats: RouterStats) -> None:
    counts = stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7)
    for modality in ("CT", " ct", "x-ray", "ultrasound", None):
        stats.add(counts, route="vqa", modality=modality)
    found = {name: layers[0].tokens for name, layers in stats.report().by_modality.items()}
    assert found == {"CT": 16, "X-ray": 8, "ultrasound": 8, "unstated": 8}
    of_layer_2 = {(name, expert): tokens for layer, expert, name, tokens in stats.tokens_by_modality() if layer == 2}
    # As CHOSEN_2 has it: all of them go to expert 1.
    assert {key for key, tokens in of_layer_2.items() if tokens} == {(name, 1) for name in found}
    assert {name: of_layer_2[name, 1] for name in found} == found


def test_a_modality_that_nobody_knows_is_refused_by_naming_those_that_are(stats: RouterStats) -> None:
    with pytest.raises(InvalidField, match="CT, MRI, X-ray") as refused:
        stats.require_modality("JANE DOE")
    assert refused.value.param == "modality"
    assert "JANE" not in str(refused.value)


def test_a_window_forgets_and_the_total_does_not() -> None:
    now = 0.0
    stats = RouterStats(tiny_config(), clock=lambda: now)
    counts = stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7)
    stats.add(counts, route="vqa")
    now = 400.0
    stats.add(counts, route="classify")
    recent, total = stats.report(window=300), stats.report()
    assert (recent.requests, recent.window_seconds, set(recent.by_route)) == (1, 300, {"classify"})
    assert (total.requests, total.window_seconds, set(total.by_route)) == (2, None, {"vqa", "classify"})
    # No window is longer than there was counting.
    assert recent.since == total.since
    assert recent.overall == recent.by_route["classify"] == recent.by_modality["unstated"]
    stats.reset()
    assert stats.report(window=300).requests == 0


def test_nothing_counted_is_not_called_uneven(stats: RouterStats) -> None:
    layer = stats.report().overall[0]
    assert (layer.tokens, layer.entropy, layer.cv, layer.dead_experts) == (0, None, None, ())


def test_reset_forgets(stats: RouterStats) -> None:
    stats.add(stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7), route="vqa")
    stats.reset()
    assert stats.report().requests == 0
    assert stats.report().overall[0].tokens == 0


def test_every_expert_of_a_top_2_router_counts() -> None:
    stats = RouterStats(tiny_config(num_experts_per_tok=2))
    both = np.zeros((8, 3, 2), dtype=np.int16)
    both[..., 1] = 3
    layer = stats.request_report(stats.count(both, prompt_ids=PROMPT, prompt_tokens=7)).layers[0]
    assert layer.image == (4, 0, 0, 4)


def test_a_dense_model_reports_no_layers() -> None:
    stats = RouterStats(tiny_config(moe_layers=()))
    stats.add(stats.count(routed(), prompt_ids=PROMPT, prompt_tokens=7), route="vqa")
    assert stats.report().overall == ()
