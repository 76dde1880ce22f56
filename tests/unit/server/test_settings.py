"""Deployment settings from the environment."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medmoe.model.errors import ConfigError
from medmoe.server import __main__ as main_module
from medmoe.server.auth.api_keys import ApiKeys
from medmoe.server.auth.key_file import parse_key_file
from medmoe.server.settings import Settings
from tests.support.service.certificates import Authority

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_the_defaults_listen_on_loopback_only() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.model.parts[-2:] == ("pretrained", "medmoe-tiny")


def test_variables_are_read_and_empty_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMOE_MODEL", "/some/where")
    monkeypatch.setenv("MEDMOE_MAX_QUEUED", "0")
    monkeypatch.setenv("MEDMOE_PORT", "")
    settings = Settings()
    assert (settings.model, settings.max_queued, settings.port) == (Path("/some/where"), 0, 8000)


def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMOE_MAX_QUEUE", "5")
    with pytest.raises(ConfigError, match="MEDMOE_MAX_QUEUE"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MEDMOE_POTR", "80", r"did you mean MEDMOE_PORT\?; server/SETTINGS\.md"),
        ("MEDMOE_XYZZY", "1", r"unknown variable MEDMOE_XYZZY; server/SETTINGS\.md"),
        ("MEDMOE_PICTURE_CACHE_MIB", "64", "MEDMOE_PICTURE_CACHE_MIB is now MEDMOE_ENCODER_CACHE_MIB"),
        ("MEDMOE_KEPT_PICTURES", "0", "MEDMOE_KEPT_PICTURES is now MEDMOE_IMAGE_CACHE_ENTRIES"),
        (
            "MEDMOE_CHECKPOINT",
            "/models/a",
            "MEDMOE_CHECKPOINT is for docker compose alone: set MEDMOE_MODEL, or unset it;",
        ),
        ("MEDMOE_API_KEYS_FOLDER", "./keys", "set MEDMOE_API_KEYS, or unset it;"),
        ("MEDMOE_PUBLISHED_POTR", "8137", "unknown variable MEDMOE_PUBLISHED_POTR"),
        ("MEDMOE_PORT", "tcp://10.0.0.1:8000", "MEDMOE_PORT .*enableServiceLinks: false"),
        ("MEDMOE_SERVICE_HOST", "10.0.0.1", "MEDMOE_SERVICE_HOST .*enableServiceLinks: false"),
        ("MEDMOE_GPU_PORT_8000_TCP_ADDR", "10.0.0.1", "enableServiceLinks: false"),
    ],
)
def test_an_unknown_variable_is_refused_with_a_way_out(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=expected):
        Settings()


def test_variables_of_the_client_do_not_stop_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEDMOE_API_KEY", "MEDMOE_URL", "MEDMOE_DEBUG"):
        monkeypatch.setenv(name, "http://127.0.0.1:8137")
    assert Settings().api_keys is None


def test_variables_of_compose_do_not_stop_the_service_where_its_own_say_what_they_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GPUS", "METRICS_KEY_FILE", "PUBLISHED_PORT", "START_SECONDS", "CHECKPOINT", "API_KEYS_FOLDER"):
        monkeypatch.setenv(f"MEDMOE_{name}", "8137")
    monkeypatch.setenv("MEDMOE_API_KEYS", "keys")
    assert Settings(model=Path("tuned")).port == 8000
    monkeypatch.setenv("MEDMOE_MODEL", "tuned")
    assert Settings().model == Path("tuned")
    monkeypatch.setenv("MEDMOE_API_KEYS", "")
    with pytest.raises(ConfigError, match="MEDMOE_API_KEYS_FOLDER"):
        Settings()
    monkeypatch.setenv("MEDMOE_API_KEYS_FOLDER", "")
    assert Settings().api_keys is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
    ],
)
def test_the_address_on_this_machine_is_one_that_a_browser_takes(host: str, url: str) -> None:
    assert Settings(host=host, insecure=True).url == url


@pytest.mark.parametrize(
    ("name", "value"), [("port", 70000), ("kv_cache_gib", 0), ("engine", "magic"), ("dtype", "int8")]
)
def test_senseless_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_hosts_of_images_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().image_url_hosts == frozenset()
    monkeypatch.setenv("MEDMOE_IMAGE_URL_HOSTS", "Images.Example.ORG., b\u00fccher.example")
    assert Settings().image_url_hosts == {"images.example.org", "xn--bcher-kva.example"}


@pytest.mark.parametrize("hosts", ["*", "https://SECRET.org", "SECRET.org:443", "127.0.0.1", "[::1]", "a,,b", "a,b c"])
def test_what_is_no_host_is_refused_without_a_word_of_it(hosts: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(image_url_hosts=hosts)  # type: ignore[arg-type]
    assert "SECRET" not in raised.value.errors()[0]["msg"]


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_says_what_it_does(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MEDMOE_PROT", "80", "MEDMOE_PROT"),
        ("MEDMOE_PORT", "SECRET", "MEDMOE_PORT"),
        ("MEDMOE_HOST", "0.0.0.0", "MEDMOE_API_KEYS"),
        ("MEDMOE_MODEL", "/nowhere", "/nowhere does not exist; "),
        ("MEDMOE_TENSOR_PARALLEL_SIZE", "3", "does not divide this checkpoint's num_attention_heads 4; use 1 or 2"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medmoe.server.observability.json_log.configure", lambda level: None)
    monkeypatch.setenv(variable, value)
    assert main_module.main() == main_module.UNUSABLE
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert expected in written
    assert "SECRET" not in written


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_the_network_is_not_let_in_without_keys(host: str) -> None:
    with pytest.raises(ValidationError, match="MEDMOE_API_KEYS"):
        Settings(host=host)
    assert Settings(host=host, api_keys=Path("keys")).host == host
    assert Settings(host=host, insecure=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert Settings(host=host).api_keys is None


def test_the_network_is_let_in_by_an_identity_provider_or_by_certificates() -> None:
    tokens = {"oidc_issuer": "https://login.example/ward", "oidc_audience": "medmoe"}
    assert Settings(host="::", **tokens).authenticates
    certificates = {name: Path(name) for name in ("tls_certificate", "tls_key", "tls_client_ca")}
    assert Settings(host="::", **certificates).url == "https://[::1]:8000"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"oidc_issuer": "https://login.example/ward"}, "MEDMOE_OIDC_AUDIENCE"),
        ({"oidc_issuer": "http://login.example/ward", "oidc_audience": "a"}, "https URL"),
        ({"oidc_issuer": "https://user:word@login.example", "oidc_audience": "a"}, "https URL"),
        ({"oidc_issuer": "login.example", "oidc_audience": "a"}, "https URL"),
        ({"oidc_jwks_url": "https://login.example/keys"}, "need MEDMOE_OIDC_ISSUER"),
        ({"tls_certificate": "tls.crt"}, "MEDMOE_TLS_KEY"),
        ({"tls_key": "tls.key"}, "MEDMOE_TLS_CERTIFICATE"),
        ({"tls_client_ca": "ca.crt"}, "MEDMOE_TLS_CERTIFICATE"),
    ],
)
def test_half_a_door_is_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "hidden", "limit"),
    [
        ({"max_body_bytes": 2**20 + 1, "max_series_bytes": 2**20, "body_memory_mib": 1}, "MAX_BODY", "BODY_MEMORY_MIB"),
        ({"body_memory_mib": 255}, "MAX_SERIES_BYTES", "BODY_MEMORY_MIB"),
        ({"batch_dir": "b", "batch_max_bytes": 2**31 + 1}, "BATCH_MAX_BYTES", "BODY_MEMORY_MIB"),
        ({"batch_dir": "b", "batch_max_bytes": 2**31}, "BATCH_MAX_BYTES", "BODY_MEMORY_MIB"),
        ({"batch_dir": "b", "batch_max_stored_bytes": 2**20}, "BATCH_MAX_BYTES", "BATCH_MAX_STORED_BYTES"),
        ({"max_explain_steps": 7}, "EXPLAIN_GRID", "MAX_EXPLAIN_STEPS"),
        ({"series_slices": 65}, "SERIES_SLICES", "MAX_SERIES_SLICES"),
        ({"default_max_tokens": 9, "max_tokens": 8}, "DEFAULT_MAX_TOKENS", "MAX_TOKENS"),
    ],
)
def test_a_setting_that_another_hides_is_refused_with_both_names(
    settings: dict[str, Any], hidden: str, limit: str
) -> None:
    with pytest.raises(ValidationError, match=f"MEDMOE_{hidden}.* MEDMOE_{limit} allows .*lower the first or raise"):
        Settings(**settings)


def test_limits_that_just_fit_start() -> None:
    assert Settings(body_memory_mib=256).max_series_bytes == 256 * 2**20
    # The file limit of batches means nothing without them; what is not set is lowered with its limit.
    assert Settings(batch_max_bytes=2**32, max_series_slices=4, max_tokens=8).batch_dir is None


def test_a_missing_directory_of_checkpoints_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs a directory that is there"):
        Settings(checkpoints_dir=tmp_path / "missing")


def test_files_of_tls_are_checked_before_everything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("medmoe.server.observability.json_log.configure", lambda level: None)
    authority = Authority(folder=tmp_path)
    monkeypatch.setenv("MEDMOE_TLS_CERTIFICATE", str(authority.issue("one").certificate))
    monkeypatch.setenv("MEDMOE_TLS_KEY", str(authority.issue("two").key))
    monkeypatch.setenv("MEDMOE_MODEL", str(tmp_path / "nowhere"))
    assert main_module.main() == main_module.UNUSABLE
    written = capsys.readouterr().err
    assert written.startswith("error: cannot start: MEDMOE_TLS_KEY: ")
    assert written.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({}, []),
        ({"host": "0.0.0.0", "api_keys": "keys"}, ["unencrypted"]),
        ({"host": "0.0.0.0", "insecure": True}, ["unencrypted", "anyone"]),
        ({"host": "0.0.0.0", "api_keys": "keys", "tls_certificate": "tls.crt", "tls_key": "tls.key"}, []),
    ],
)
def test_an_open_network_is_a_warning_at_the_start(
    settings: dict[str, Any], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    main_module._warn_of_an_open_network(Settings(**settings))
    assert len(caplog.messages) == len(warnings)
    assert all(word in message for word, message in zip(warnings, caplog.messages, strict=True))


def test_a_checkpoint_may_be_named_as_an_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("medmoe.server.observability.json_log.configure", lambda level: None)
    monkeypatch.setenv("MEDMOE_MODEL", str(tmp_path / "other"))
    assert main_module.main(tmp_path / "tuned") == main_module.UNUSABLE
    assert f"{tmp_path / 'tuned'} does not exist" in capsys.readouterr().err


def test_a_new_key_is_printed_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main_module.main(new_key="lab") == 0
    written = capsys.readouterr()
    key = next(word for word in written.err.split() if word.startswith("mm-"))
    (tmp_path / "keys").write_text(written.out)
    found = ApiKeys(parse_key_file((tmp_path / "keys").read_bytes())).find(key)
    assert found is not None
    assert found.tenant.log_id is not None
