"""adapter_config.json: what it refuses, and that it says everything."""

import json
import subprocess
import sys
from typing import Any

import pytest

from medmoe.model.errors import ConfigError
from medmoe.model.lora.adapter_config import AdapterConfig, architecture_sha256
from tests.support.checkpoints.tiny import tiny_config
from tests.support.checkpoints.tiny_lora import tiny_adapter


def fields() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(tiny_adapter(tiny_config(moe_layers=())).to_json())
    return config


def test_what_is_written_is_what_is_read() -> None:
    config = tiny_adapter(tiny_config(moe_layers=()), training={"recipe": "x", "delta": 0.5})
    assert AdapterConfig.from_json(config.to_json()) == config


def test_the_layers_are_spelled_out() -> None:
    assert fields()["layers"][2] == {"n_anchor": 2, "ranks": [2, 2, 8, 4], "alphas": [4.0, 4.0, 16.0, 8.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 2}, "top_k"),
        ({"unknown": 1}, "unknown"),
        ({"peft_type": "LORA"}, "peft_type"),
        ({"format_version": 2}, "format_version"),
        ({"router_scope": "layer"}, "router_scope"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["fc1", "fc1"]}, "repeats"),
        ({"tau_clamp": [2.0, 4.0]}, "tau_clamp"),
        ({"anchor_mode": "null"}, "layer 0 has anchors with a rank"),
        ({"layers": [{"n_anchor": 0, "ranks": [4, 0], "alphas": [8.0, 0.0]}]}, "rank 0"),
        ({"layers": [{"n_anchor": 2, "ranks": [4, 4], "alphas": [8.0, 8.0]}]}, "specialist"),
        ({"layers": [{"n_anchor": 1, "ranks": [4, 4], "alphas": [8.0]}]}, "1 alphas for 2 ranks"),
        ({"layers": [{"n_anchor": 1, "ranks": [0, 4], "alphas": [0.0, 8.0]}]}, "anchor of rank 0"),
        ({"base": {"name": "x", "config_sha256": "0", "weights_sha256": "0" * 64}}, "config_sha256"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdapterConfig.from_json(json.dumps(fields() | change))


def test_the_architectures_digest_ignores_names_and_storage_but_nothing_that_is_computed() -> None:
    config = tiny_config(moe_layers=())
    digest = architecture_sha256(config)
    assert architecture_sha256(config.model_copy(update={"name": "other", "dtype": "bfloat16"})) == digest
    assert architecture_sha256(tiny_config(moe_layers=(), rope_theta=5e5)) != digest
    prompt = config.prompt.model_copy(update={"separator": " "})
    assert architecture_sha256(config.model_copy(update={"prompt": prompt})) != digest


@pytest.mark.parametrize("module", ["adapter_config", "layout", "schedule"])
def test_reading_a_configuration_needs_no_torch(module: str) -> None:
    check = f"import sys, medmoe.model.lora.{module}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
