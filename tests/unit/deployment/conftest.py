"""The files that deploy the service, read as YAML."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
RULES = DOCKER / "prometheus" / "rules"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules(*names: str) -> list[dict[str, Any]]:
    """Of the files called `names`, or of all."""
    files = [RULES / f"{name}.yml" for name in names] or sorted(RULES.glob("*.yml"))
    return [rule for file in files for group in read(file)["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]
