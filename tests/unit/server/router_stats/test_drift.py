"""Jensen-Shannon divergence against values worked out by hand, and which counts it is taken of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmoe.model.files.routing_reference import CountedOn, LayerReference, RoutingReference
from medmoe.server.router_stats.drift import jensen_shannon, routing_drift
from medmoe.server.schemas.router_stats import RoutingDrift

KINDS = ("image", "question", "answer")
SHARES = st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any)


def drift(**modalities: list[list[int]]) -> RoutingDrift:
    reference = RoutingReference(
        weights_sha256="a" * 64,
        counted_on=CountedOn(datasets=("slake",), split="test", samples=3),
        layers=(
            LayerReference(
                layer=2, by_kind={"image": (10, 10), "question": (0, 20)}, by_modality={"CT": (10, 0), "MRI": (0, 30)}
            ),
        ),
    )
    counts = {name: np.array(rows)[:, None, :] for name, rows in modalities.items()}
    return routing_drift(reference, counts, kinds=KINDS)


def test_the_divergence_by_hand() -> None:
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    expected = (math.log2(1 / 0.75) + 0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25)) / 2
    assert jensen_shannon(p, q) == pytest.approx(expected)
    assert jensen_shannon(p, np.array([0.0, 1.0])) == pytest.approx(1.0)


@given(SHARES, SHARES)
def test_it_is_symmetric_bounded_and_zero_for_equals(left: list[int], right: list[int]) -> None:
    p, q = (np.array(counts) / sum(counts) for counts in (left, right))
    assert 0 <= jensen_shannon(p, q) <= 1
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-12)


def test_traffic_like_the_reference_has_no_drift_whatever_the_answers_did() -> None:
    (layer,) = drift(CT=[[5, 5], [0, 10], [1000, 0]]).layers
    assert (layer.layer, layer.tokens) == (2, 20)
    assert layer.divergence == pytest.approx(0)
    assert {kind: (found.tokens, found.divergence) for kind, found in layer.by_kind.items()} == {
        "image": (10, pytest.approx(0)),
        "question": (10, pytest.approx(0)),
    }


def test_each_kind_and_each_known_modality_has_its_own_divergence() -> None:
    (layer,) = drift(mri=[[6, 0], [0, 0], [0, 0]], unstated=[[0, 6], [4, 0], [0, 0]]).layers
    assert layer.tokens == 16
    assert layer.by_kind["image"].divergence == pytest.approx(0)
    assert layer.by_kind["question"].divergence == pytest.approx(1)
    assert set(layer.by_modality) == {"mri"}
    assert (layer.by_modality["mri"].tokens, layer.by_modality["mri"].divergence) == (6, pytest.approx(1))


def test_before_the_first_token_there_is_no_divergence() -> None:
    found = drift()
    assert (found.layers[0].tokens, found.layers[0].divergence) == (0, None)
    assert (found.datasets, found.reference_samples, found.reference_tokens) == (("slake",), 3, 40)
