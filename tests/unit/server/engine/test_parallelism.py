"""How many ranks a checkpoint can be divided among, and which cores each takes, decided without vLLM."""

from typing import Any

import pytest

from medmoe.model.config import TextConfig
from medmoe.server.engine.deployment import parallelism
from medmoe.server.engine.deployment.parallelism import check_parallelism, thread_binding
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("clean_environment")

# Sizes of Phi-2, StableLM-2-1.6B and of a decoder with few heads of keys and values.
PHI_2 = {
    "model_type": "phi",
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
STABLELM_2 = {
    "model_type": "stablelm",
    "vocab_size": 100352,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
GROUPED = {"hidden_size": 384, "intermediate_size": 768, "num_attention_heads": 12, "num_key_value_heads": 2}


def check(shape: dict[str, Any], *, on_cpu: bool = False, **settings: Any) -> None:
    check_parallelism(Settings(**settings), text(shape), on_cpu=on_cpu)


def text(shape: dict[str, Any]) -> TextConfig:
    return tiny_config(**shape).text_config


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("shape", [PHI_2, STABLELM_2], ids=["phi-2", "stablelm-2"])
def test_the_published_backbones_divide_among_powers_of_two(shape: dict[str, Any], on_cpu: bool, ranks: int) -> None:
    check(shape, on_cpu=on_cpu, tensor_parallel_size=ranks)


@pytest.mark.parametrize("ranks", [1, 2, 4, 6])
def test_ranks_may_share_a_head_of_keys_and_values(ranks: int) -> None:
    check(GROUPED | {"vocab_size": 768}, tensor_parallel_size=ranks)


@pytest.mark.parametrize(
    ("shape", "ranks", "field", "value", "advice"),
    [
        (GROUPED, 5, "num_attention_heads", "12", "use 1, 2, 3 or 4"),
        (GROUPED, 3, "num_key_value_heads", "2", "use 1 or 2"),
        (GROUPED | {"intermediate_size": 770}, 4, "intermediate_size", "770", "use 1 or 2"),
        (GROUPED | {"vocab_size": 512, "num_key_value_heads": 3}, 3, "vocab_size", "512", "use 1 or 2"),
    ],
)
def test_ranks_that_do_not_divide_are_refused_by_name(
    shape: dict[str, Any], ranks: int, field: str, value: str, advice: str
) -> None:
    with pytest.raises(DeploymentError) as refusal:
        check(shape, tensor_parallel_size=ranks)
    message = str(refusal.value)
    assert f"MEDMOE_TENSOR_PARALLEL_SIZE={ranks}" in message
    assert field in message
    assert value in message
    assert message.endswith(advice)


def test_a_vocabulary_counts_as_the_engine_pads_it() -> None:
    # 500 rows become 512.
    check(GROUPED | {"vocab_size": 500}, tensor_parallel_size=4)


def test_expert_parallelism_deals_experts_to_ranks() -> None:
    check({"num_attention_heads": 4}, tensor_parallel_size=4, expert_parallel=True)


@pytest.mark.parametrize(
    ("shape", "on_cpu", "ranks", "reason"),
    [
        ({}, True, 2, "does not work on CPU.*past the end.*crashes"),
        ({"moe_layers": ()}, False, 2, "no experts"),
        ({}, False, 1, "set MEDMOE_TENSOR_PARALLEL_SIZE too"),
        ({}, False, 8, r"num_experts .* 4; use 1, 2 or 4"),
    ],
)
def test_expert_parallelism_is_refused_with_its_reason(
    shape: dict[str, Any], on_cpu: bool, ranks: int, reason: str
) -> None:
    with pytest.raises(DeploymentError, match=reason):
        check(shape, on_cpu=on_cpu, tensor_parallel_size=ranks, expert_parallel=True)


@pytest.fixture
def _no_topology(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(parallelism, "_TOPOLOGY", tmp_path)


@pytest.mark.usefixtures("_no_topology")
@pytest.mark.parametrize(
    ("cores", "ranks", "expected"),
    [
        ({0, 1}, 1, "0,1"),
        (set(range(16)), 1, None),
        ({0, 1}, 2, "0|1"),
        ({3, 5, 7, 9, 11}, 2, "3,5,7|9,11"),
        (set(range(8)), 4, "0,1|2,3|4,5|6,7"),
    ],
)
def test_ranks_share_the_cores_that_the_process_may_use(cores: set[int], ranks: int, expected: str | None) -> None:
    assert thread_binding(cores, ranks=ranks, asked=None) == expected


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (2, "0,1|2,3"),
        # More ranks than cores: better two threads of one core than no rank.
        (8, "0|1|2|3|4|5|6|7"),
    ],
)
def test_two_threads_of_a_core_are_not_two_cores(
    ranks: int, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for thread in range(8):
        folder = tmp_path / f"cpu{thread}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{thread % 4},{thread % 4 + 4}\n")
    monkeypatch.setattr(parallelism, "_TOPOLOGY", tmp_path)
    assert thread_binding(range(8), ranks=ranks, asked=None) == expected


def test_fewer_cores_than_ranks_are_refused() -> None:
    with pytest.raises(DeploymentError, match=r"MEDMOE_TENSOR_PARALLEL_SIZE=4 .* may use 2"):
        thread_binding({0, 1}, ranks=4, asked=None)


@pytest.mark.parametrize("asked", ["auto", "nobind", "4-7|8-11"])
def test_the_operators_binding_stays(asked: str) -> None:
    assert thread_binding({0}, ranks=2, asked=asked) == asked


def test_a_binding_for_another_number_of_ranks_is_refused() -> None:
    with pytest.raises(DeploymentError, match="is for 1 ranks and MEDMOE_TENSOR_PARALLEL_SIZE is 2"):
        thread_binding({0, 1}, ranks=2, asked="0,1")
