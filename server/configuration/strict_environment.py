"""Read MEDMOE_* variables strictly: an unknown one is refused, because a misspelt limit would be no limit."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from medmoe.model.errors import ConfigError

PREFIX = "MEDMOE_"
RENAMED = {"picture_cache_mib": "encoder_cache_mib", "kept_pictures": "image_cache_entries"}
"""Former names of settings, which are refused with the present name."""
OF_COMPOSE = {
    "api_keys_folder": "api_keys",
    "checkpoint": "model",
    "gpus": None,
    "metrics_key_file": None,
    "published_port": None,
    "start_seconds": None,
}
"""Variables of the compose files. They are ignored, but for those without whose setting anyone, or another model, would
be served."""
_COMMAND_LINE = frozenset({"api_key", "url", "debug", "ca_file", "client_certificate", "client_key"})
"""Variables of the client and the command line; they may lie in the same .env file."""
_SERVICE_LINK = re.compile(r"(.+_)?(service_host|service_port(_.+)?|port_\d+_(tcp|udp|sctp)(_.+)?)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_LIST = "server/SETTINGS.md lists all settings"


class _StrictEnvironment(EnvSettingsSource):
    """Read the environment; refuse variables that are no setting."""

    def __call__(self) -> dict[str, Any]:
        prefix = PREFIX.lower()
        given = {
            name.lower().removeprefix(prefix): value or ""
            for name, value in self.env_vars.items()
            if name.lower().startswith(prefix)
        }
        known = set(self.settings_cls.model_fields)
        links = sorted(
            name for name, value in given.items() if _SERVICE_LINK.fullmatch(name) or _SERVICE_ADDRESS.match(value)
        )
        if links:
            raise ConfigError(
                f"{variable(links[0])} was set by Kubernetes for a Service named like the settings; set"
                " enableServiceLinks: false in the pod's spec, or rename the Service"
            )
        if unknown := sorted(given.keys() - known - _COMMAND_LINE - self._ignored_of_compose(given)):
            raise ConfigError(f"{'; '.join(_unknown(name, known) for name in unknown)}; {_LIST}")
        return super().__call__()

    def _ignored_of_compose(self, given: Mapping[str, str]) -> set[str]:
        chosen = self.current_state.keys() | {name for name, value in given.items() if value}
        return {
            name for name, setting in OF_COMPOSE.items() if setting is None or setting in chosen or not given.get(name)
        }


class StrictSettings(BaseSettings):
    """Base of settings that come from the environment alone."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _StrictEnvironment(settings_cls)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return (PREFIX + name).upper()


def _unknown(name: str, known: set[str]) -> str:
    if name in RENAMED:
        return f"{variable(name)} is now {variable(RENAMED[name])}"
    if setting := OF_COMPOSE.get(name):
        return f"{variable(name)} is for docker compose alone: set {variable(setting)}, or unset it"
    similar = get_close_matches(name, sorted(known), n=1)
    return f"unknown variable {variable(name)}" + (f": did you mean {variable(similar[0])}?" if similar else "")
