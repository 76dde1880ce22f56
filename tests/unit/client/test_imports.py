"""The client stands on its own, and its commands start fast: nothing heavy is imported, nothing of the service."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "vllm", "transformers", "fastapi", "starlette", "uvicorn", "numpy", "PIL", "pydicom")


def imported(code: str) -> set[str]:
    """Module names after `code`, in a fresh interpreter."""
    whole = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


def check(found: set[str]) -> None:
    assert not found & set(HEAVY)
    assert "medmoe.client" in found
    assert not any(name.startswith(("medmoe.server", "medmoe.training")) for name in found)


def test_the_client_imports_neither_the_service_nor_what_it_may_not_need() -> None:
    check(imported("import medmoe.client"))


@pytest.mark.parametrize("command", ["ask", "classify", "stats", "batch", "bench", "watch"])
def test_a_command_starts_without_them_too(command: str) -> None:
    check(imported(f"from medmoe.model.cli import app; app(['{command}', '--help'])"))
