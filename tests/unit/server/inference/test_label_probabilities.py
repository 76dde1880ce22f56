"""From log-likelihoods to decisions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmoe.server.engine.base import GenerationError
from medmoe.server.inference.label_probabilities import agreement, by_choice, by_likelihood, by_presence
from medmoe.server.inference.label_prompts import rotations

LOGS = st.floats(min_value=-40, max_value=0)


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / math.fsum(weights) for weight in weights]


@given(st.lists(LOGS, min_size=2, max_size=8))
def test_probabilities_are_a_distribution_in_the_likelihoods_order(logs: list[float]) -> None:
    found = by_likelihood(logs)
    assert math.fsum(found.probabilities) == pytest.approx(1)
    assert found.probabilities == pytest.approx(softmax(logs))
    assert logs[found.best] == pytest.approx(max(logs))
    assert found.probabilities[found.best] == max(found.probabilities)
    assert 0 <= found.margin <= 1
    assert 0 <= found.entropy <= math.log(len(logs)) + 1e-9
    assert found.label_mass == pytest.approx(math.fsum(map(math.exp, logs)))


def test_normalised_for_length_a_long_label_is_as_likely_as_its_tokens() -> None:
    logs, lengths = [-2.0, -3.0], [1, 6]
    assert by_likelihood(logs).best == 0
    found = by_likelihood(logs, lengths=lengths)
    assert found.best == 1
    assert found.probabilities == pytest.approx(softmax([-2.0, -0.5]))
    # What the model would answer has not changed.
    assert found.log_likelihoods == (-2.0, -3.0)
    assert found.label_mass == pytest.approx(math.exp(-2) + math.exp(-3))


@given(st.lists(st.tuples(LOGS, LOGS), min_size=2, max_size=6))
def test_all_rotations_cancel_what_the_model_thinks_of_letters(drawn: list[tuple[float, float]]) -> None:
    merit, bias = [first for first, _ in drawn], [second for _, second in drawn]
    orders = rotations([f"label {index}" for index in range(len(merit))], at_most=26)
    observed = []
    for order in orders:
        by_label = {label: merit[label] + bias[letter] for letter, label in enumerate(order)}
        observed.append([by_label[label] for label in range(len(merit))])
    assert by_choice(observed).probabilities == pytest.approx(softmax(merit), abs=1e-9)


@given(st.sets(st.text(min_size=1), min_size=2, max_size=26), st.integers(min_value=1, max_value=30))
def test_rotations_do_not_depend_on_the_order_of_the_labels(labels: set[str], at_most: int) -> None:
    ordered, other = sorted(labels), sorted(labels, key=hash)
    found = [[ordered[index] for index in order] for order in rotations(ordered, at_most=at_most)]
    assert found == [[other[index] for index in order] for order in rotations(other, at_most=at_most)]
    assert len(found) == len(set(map(tuple, found))) == min(len(labels), at_most)
    if at_most >= len(labels):
        assert all({order[place] for order in found} == labels for place in range(len(labels)))


def test_the_mass_of_a_choice_is_the_mean_of_its_rotations() -> None:
    found = by_choice([[math.log(0.5), math.log(0.3)], [math.log(0.2), math.log(0.4)]])
    assert found.label_mass == pytest.approx((0.8 + 0.6) / 2)


def test_labels_of_many_tokens_are_compared_however_unlikely() -> None:
    assert by_likelihood([-1000.0, -1001.0]).probabilities == pytest.approx(softmax([0.0, -1.0]))
    found = by_presence([-1000.0, -1.0], [-2.0, -1000.0])
    assert found.probability == pytest.approx(softmax([-1.0, -2.0])[0])


def test_agreement_is_the_share_of_orders_that_the_best_label_won() -> None:
    assert agreement([[-1, -2], [-1, -3], [-2, -1], [-1, -1]], best=0) == 0.75


def test_both_ways_to_say_yes_count() -> None:
    found = by_presence([math.log(0.3), math.log(0.1)], [math.log(0.05), math.log(0.05)])
    assert found.probability == pytest.approx(0.8)
    assert found.label_mass == pytest.approx(0.5)
    assert found.margin == pytest.approx(0.6)
    assert found.confidence == pytest.approx(0.8)
    assert by_presence([-9.0], [-1.0]).confidence > 0.99


def test_what_is_impossible_for_the_engine_is_no_decision() -> None:
    nothing = -math.inf
    assert by_likelihood([nothing, -1.0]).probabilities == (0.0, 1.0)
    assert by_presence([nothing, nothing], [-1.0, nothing]).probability == 0
    for decide in (
        lambda: by_likelihood([nothing, nothing]),
        lambda: by_choice([[nothing, -1.0], [-1.0, nothing]]),
        lambda: by_presence([nothing], [nothing]),
    ):
        with pytest.raises(GenerationError):
            decide()


def test_contextual_calibration_leaves_what_is_impossible_impossible() -> None:
    content_free = (-1.0, -math.inf, -2.0)
    found = by_likelihood((-1.0, -math.inf, -3.0), content_free=content_free)
    assert found.probabilities == pytest.approx((1 / (1 + math.exp(-1)), 0, 1 / (1 + math.e)))
