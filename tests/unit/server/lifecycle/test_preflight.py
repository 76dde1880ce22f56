"""A service that does not fit its machine or its checkpoint says so before the engine starts."""

import re
import socket
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.weight_files import WEIGHTS_FILE, WEIGHTS_INDEX_FILE, WeightFiles
from medmoe.model.signing.signature import generate_key, sign_directory
from medmoe.server import __main__ as main_module
from medmoe.server.errors import DeploymentError
from medmoe.server.lifecycle.preflight import (
    check_memory,
    check_model_directory,
    check_signature,
    check_weights,
    listening_sockets,
)
from medmoe.server.settings import Settings

BUNDLED = Settings.model_fields["model"].get_default(call_default_factory=True)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The bundled checkpoint with weights that a test may change."""
    for file in BUNDLED.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_taken_port_is_refused_by_name() -> None:
    with listening_sockets("127.0.0.1", 0) as (first,):
        port = first.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"MEDMOE_PORT={port}: .*address already in use"),
            listening_sockets("127.0.0.1", port),
        ):
            pass
    # Free again at once.
    with listening_sockets("127.0.0.1", port) as (second,):
        assert second.getsockname()[1] == port


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_takes_ipv4_too() -> None:
    with listening_sockets("::", 0) as sockets:
        port = sockets[0].getsockname()[1]
        for address in ("::1", "127.0.0.1"):
            socket.create_connection((address, port), timeout=60).close()


@pytest.mark.parametrize("host", ["::", "[::]", "[::1]"])
def test_an_address_of_ipv6_has_brackets_in_the_url_only(host: str) -> None:
    settings = Settings(host=host, insecure=True)
    assert settings.host == host.strip("[]")
    assert settings.url == "http://[::1]:8000"


def test_a_host_without_an_address_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"MEDMOE_HOST=nowhere\.invalid"), listening_sockets("nowhere.invalid", 0):
        pass


@pytest.mark.parametrize("kept", [0, 4, 200, -1], ids=["empty", "in the length", "in the header", "in the last tensor"])
def test_truncated_weights_are_refused(damaged: Path, kept: int) -> None:
    check_weights(damaged)
    weights = WeightFiles.of(damaged).files[-1]
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="the weights are damaged or incomplete"):
        check_weights(damaged)


def test_missing_weights_are_refused(damaged: Path) -> None:
    weights = WeightFiles.of(damaged)
    weights.files[-1].unlink()
    with pytest.raises(CheckpointError, match=f"lacks shards .*{re.escape(weights.files[-1].name)}"):
        check_weights(damaged)
    for path in (*weights.files[:-1], damaged / WEIGHTS_INDEX_FILE):
        path.unlink()
    with pytest.raises(CheckpointError, match=f"has no {re.escape(WEIGHTS_FILE)}"):
        check_weights(damaged)


def test_a_damaged_adapter_is_refused(damaged: Path) -> None:
    (damaged / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        check_weights(damaged)


def test_key_value_caches_of_all_ranks_must_fit(tmp_path: Path) -> None:
    import numpy as np

    save_file({"x": np.zeros(2**18, dtype=np.float32)}, tmp_path / WEIGHTS_FILE)
    settings = Settings(model=tmp_path, kv_cache_gib=3, tensor_parallel_size=2)
    check_memory(settings, free=6 * 2**30 + 2 * 2**20)
    with pytest.raises(DeploymentError, match=r"MEDMOE_KV_CACHE_GIB=3 for each of 2 ranks"):
        check_memory(settings, free=6 * 2**30)


def test_checkpoints_nearby_are_proposed_the_most_similar_first(tmp_path: Path) -> None:
    for name in ("medmoe-tiny", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_bytes((BUNDLED / "config.json").read_bytes())
    with pytest.raises(ConfigError, match=r"MEDMOE_MODEL: .*checkpoints nearby: \S*medmoe-tiny, \S*other"):
        check_model_directory(tmp_path / "runs" / "medmoe-tyni")
    with pytest.raises(ConfigError, match=r"checkpoints nearby: .*medmoe-tiny"):
        check_model_directory(tmp_path / "runs")


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("MEDMOE_KV_CACHE_GIB", "500000", "MEDMOE_KV_CACHE_GIB"), ("MEDMOE_PORT", "taken", "already in use")],
)
def test_the_service_ends_with_one_line(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medmoe.server.observability.json_log.configure", lambda level: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv(variable, str(other.getsockname()[1]) if value == "taken" else value)
        assert main_module.main() == main_module.UNUSABLE
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert expected in written


def test_a_signature_is_verified_before_anything_is_parsed(
    damaged: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = tmp_path_factory.mktemp("keys") / "key"
    public = generate_key(key)
    monkeypatch.setattr("medmoe.server.observability.json_log.configure", lambda level: None)
    monkeypatch.setenv("MEDMOE_MODEL", str(damaged))
    monkeypatch.setenv("MEDMOE_MODEL_PUBLIC_KEY", str(public))
    monkeypatch.setattr(main_module, "build_engine", lambda _: pytest.fail("the engine was built"))
    config = (damaged / "config.json").read_bytes()
    (damaged / "config.json").write_text("no JSON")
    assert main_module.main() == main_module.UNUSABLE
    assert f"cannot start: MEDMOE_MODEL: {damaged} is not signed" in capsys.readouterr().err
    (damaged / "config.json").write_bytes(config)
    sign_directory(damaged, key)
    check_signature(Settings())
    (damaged / "config.json").write_text("no JSON")
    assert main_module.main() == main_module.UNUSABLE
    assert "config.json is not the file that was signed" in capsys.readouterr().err
    public.write_text("no key")
    assert main_module.main() == main_module.UNUSABLE
    assert f"MEDMOE_MODEL_PUBLIC_KEY: {public} is no public key" in capsys.readouterr().err
    monkeypatch.delenv("MEDMOE_MODEL_PUBLIC_KEY")
    assert main_module.main() == main_module.UNUSABLE
    assert "sign" not in capsys.readouterr().err


def test_an_engine_is_rebuilt_from_a_checkpoint_that_is_still_signed(
    damaged: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = tmp_path_factory.mktemp("keys") / "key"
    settings = Settings(model=damaged, model_public_key=generate_key(key))
    sign_directory(damaged, key)
    (damaged / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json is not the file"):
        main_module._build_verified(settings)
