"""What every container of docker-compose.yml must be held by, with and without the files that go on top of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.configuration.strict_environment import OF_COMPOSE
from medmoe.server.settings import Settings
from tests.unit.deployment.conftest import DOCKER, ROOT, read

BASE = read(ROOT / "docker-compose.yml")
ON_TOP = sorted(DOCKER.glob("compose.*.yml"))
MARGIN = 10
"""Seconds beyond the drain that Settings.drain_seconds asks an orchestrator for."""


def seconds(text: str) -> int:
    (amount,) = re.fullmatch(r"(\d+)s", text).groups()  # type: ignore[union-attr]
    return int(amount)


@pytest.mark.parametrize("name", BASE["services"])
def test_every_service_is_held(name: str) -> None:
    service: dict[str, Any] = BASE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "user"} & set(service)
    for port in service["ports"]:
        assert port.startswith("127.0.0.1:"), "published on this machine only"
    for volume in service.get("volumes", []):
        source, *_, mode = volume.split(":")
        # What is not read-only is a named volume, never a folder of the machine.
        assert mode == "ro" or source in BASE["volumes"], volume


@pytest.mark.parametrize("name", BASE["services"])
def test_every_image_names_a_version(name: str) -> None:
    image: str = BASE["services"][name]["image"]
    repository, _, tag = image.partition(":")
    # A host would have a dot or a port before its first slash.
    assert not re.match(r"[^/]*[.:][^/]*/", repository), image
    assert tag
    assert "latest" not in tag, image
    assert "build" in BASE["services"][name] or re.search(r"\d+\.\d+\.\d+", tag), image


def test_our_image_is_built_and_never_pulled() -> None:
    assert BASE["services"]["medmoe"]["pull_policy"] == "build"


def test_metrics_are_read_on_a_network_that_leads_nowhere() -> None:
    networks, services = BASE["networks"], BASE["services"]
    assert networks["scrape"] == {"internal": True}
    assert {name for name, service in services.items() if "scrape" in service["networks"]} == {"medmoe", "prometheus"}
    # Whoever looks at dashboards cannot reach the service from there.
    assert not set(services["grafana"]["networks"]) & set(services["medmoe"]["networks"])
    for name in ("door", "console"):
        assert networks[name]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}


def test_a_stop_leaves_time_for_the_drain() -> None:
    service = BASE["services"]["medmoe"]
    assert seconds(service["stop_grace_period"]) >= int(service["environment"]["MEDMOE_DRAIN_SECONDS"]) + MARGIN


@pytest.mark.parametrize("path", [ROOT / "docker-compose.yml", *ON_TOP], ids=lambda path: path.name)
def test_only_settings_that_exist_are_set(path: Path) -> None:
    environment = read(path)["services"]["medmoe"]["environment"]
    known = {f"MEDMOE_{name.upper()}" for name in Settings.model_fields}
    assert set(environment) <= known
    # YAML would make them something else than the text that a process gets.
    assert all(isinstance(value, str) for value in environment.values())


def test_the_service_knows_the_variables_of_compose_when_it_refuses_them() -> None:
    files = [ROOT / "docker-compose.yml", *ON_TOP]
    used = {name.lower() for path in files for name in re.findall(r"\$\{MEDMOE_([A-Z_]+)", path.read_text("utf-8"))}
    assert used - set(Settings.model_fields) == set(OF_COMPOSE)
    assert {setting for setting in OF_COMPOSE.values() if setting} <= set(Settings.model_fields)


def test_no_page_reaches_the_open_service_by_a_name_of_its_own() -> None:
    environment = BASE["services"]["medmoe"]["environment"]
    assert (environment["MEDMOE_INSECURE"], environment["MEDMOE_ALLOWED_HOSTS"]) == ("true", "localhost,medmoe")
    with_keys = read(DOCKER / "compose.keys.yml")["services"]["medmoe"]["environment"]
    assert with_keys["MEDMOE_ALLOWED_HOSTS"] == ""


def test_keys_end_the_insecurity() -> None:
    environment = (
        BASE["services"]["medmoe"]["environment"]
        | read(DOCKER / "compose.keys.yml")["services"]["medmoe"]["environment"]
    )
    assert environment["MEDMOE_INSECURE"] == "false"
    # A folder, so that another file in the place of the old one is seen inside.
    (volume,) = read(DOCKER / "compose.keys.yml")["services"]["medmoe"]["volumes"]
    assert volume.endswith(":/run/medmoe-keys:ro")
    assert environment["MEDMOE_API_KEYS"] == "/run/medmoe-keys/keys"


@pytest.mark.parametrize("path", ON_TOP, ids=lambda path: path.name)
def test_what_goes_on_top_loosens_nothing(path: Path) -> None:
    for name, service in read(path)["services"].items():
        assert name in BASE["services"]
        assert not {"cap_add", "cap_drop", "security_opt", "read_only", "ports", "privileged", "networks"} & set(
            service
        )


def test_prometheus_shows_a_key_whether_or_not_there_are_keys() -> None:
    (scrape,) = [
        job for job in read(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"] if job["job_name"] == "medmoe"
    ]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert BASE["services"]["prometheus"]["secrets"] == ["metrics_key"]
    default = re.search(r":-([^}]+)}", BASE["secrets"]["metrics_key"]["file"])
    assert default is not None
    # What lies in the repository opens nothing.
    assert (ROOT / default[1]).read_text() == "no-key"
