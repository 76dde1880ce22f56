"""Decisions about the house, as tests."""

import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ROOMS = ("model", "server", "training")
LONGEST = 300


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_packaged(manifest: dict) -> None:  # type: ignore[type-arg]
    on_disk = {".".join(("medmoe", *path.parent.relative_to(ROOT).parts)) for path in sources()}
    on_disk = {name.replace("medmoe.server.client", "medmoe.client") for name in on_disk}
    assert on_disk == set(manifest["tool"]["setuptools"]["packages"])


def test_the_client_has_one_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import medmoe.server.client"], capture_output=True, text=True)
    assert done.stderr.endswith("ImportError: import medmoe.client\n")


def test_files_stay_short() -> None:
    too_long = {
        str(path.relative_to(ROOT)): n for path in sources() if (n := len(path.read_text().splitlines())) > LONGEST
    }
    assert not too_long


def test_folders_stay_small() -> None:
    modules = Counter(str(path.parent.relative_to(ROOT)) for path in sources() if path.name != "__init__.py")
    assert not {folder: count for folder, count in modules.items() if count > 12}


def test_no_drawers() -> None:
    assert not [path for path in sources() if path.stem in ("utils", "helpers", "common", "misc")]


def test_plugin_modules_do_not_share_a_name_with_vllms_models() -> None:
    taken = {"llava", "phi", "clip", "utils", "config", "llama", "stablelm", "siglip", "interfaces", "registry"}
    assert not [path for path in (ROOT / "model" / "vllm_plugin").rglob("*.py") if path.stem in taken]


def test_vllm_is_imported_in_two_places_only() -> None:
    importing = {
        "model/vllm_plugin" if "vllm_plugin" in path.parts else str(path.relative_to(ROOT))
        for path in sources()
        if any(line.strip().startswith(("import vllm", "from vllm")) for line in path.read_text().splitlines())
    }
    assert importing == {"model/vllm_plugin", "server/engine/vllm_engine.py"}


def test_vllm_finds_the_plugin_by_its_entry_point() -> None:
    (point,) = [point for point in entry_points(group="vllm.general_plugins") if point.name == "medmoe"]
    assert point.value == "medmoe.model.vllm_plugin:register"


@pytest.mark.parametrize(
    "module",
    [
        "medmoe.model.vllm_plugin",
        "medmoe.model.prompt",
        "medmoe.model.image_processor",
        "medmoe.server.app",
        "medmoe.server.__main__",
    ],
)
def test_importing_stays_cheap(module: str) -> None:
    check = f"import sys, {module}; print([name for name in ('torch', 'vllm', 'transformers') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def pinned(name: str) -> dict[str, Requirement]:
    lines = (ROOT / "docker" / "requirements" / name).read_text().splitlines()
    return {Requirement(line).name: Requirement(line) for line in lines if line and not line.startswith("#")}


def satisfied(wanted: Requirement, pins: dict[str, Requirement]) -> bool:
    (pin,) = pins[wanted.name].specifier
    return wanted.specifier.contains(pin.version)


def test_the_pinned_packages_satisfy_the_manifest_and_hold_nothing_built_for_cuda(manifest: dict) -> None:  # type: ignore[type-arg]
    pins = pinned("cpu.txt")
    assert not {"torchvision", "torchaudio", "torchcodec"} & pins.keys()
    assert not [name for name in pins if name.startswith("nvidia-")]
    project = manifest["project"]
    extras = project["optional-dependencies"]
    for text in [
        *project["dependencies"],
        *(text for name in ("cpu", "serve", "train", "dev") for text in extras[name]),
    ]:
        assert text == "medmoe[serve]" or satisfied(Requirement(text), pins), text
    for name in ("browser", "ray"):
        further = pinned(f"{name}.txt")
        assert all(satisfied(Requirement(text), further) for text in extras[name])
        assert not further.keys() & pins.keys()


def test_no_registry_address_is_written_down() -> None:
    locks = (ROOT / "docker" / "requirements").glob("*.txt")
    for path in [*locks, ROOT / "pyproject.toml", ROOT / "Makefile"]:
        assert "://" not in path.read_text().replace("http://127.0.0.1", ""), path
