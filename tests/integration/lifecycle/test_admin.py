"""The operator's socket: what can be done there, who can reach it, and that the port knows nothing of it."""

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service.server_process import ServerProcess, server_process

pytestmark = pytest.mark.timeout(600)

START = 60.0
ROUTES = [("GET", "/admin/status"), ("POST", "/admin/drain"), ("POST", "/admin/router/reset")]


def with_socket(checkpoint: Path, folder: Path) -> dict[str, str]:
    return {
        "MEDMOE_MODEL": str(checkpoint),
        "MEDMOE_ENGINE": "fake",
        "MEDMOE_ADMIN_SOCKET": str(folder / "admin.sock"),
    }


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path) -> dict[str, str]:
    return with_socket(checkpoint, tmp_path)


@contextmanager
def operator(settings: dict[str, str]) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    with (
        server_process(settings=settings) as server,
        httpx.Client(
            transport=httpx.HTTPTransport(uds=settings["MEDMOE_ADMIN_SOCKET"]), base_url="http://operator", timeout=60
        ) as client,
    ):
        server.wait_ready(START)
        yield server, client


@pytest.fixture(scope="module")
def operated(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, httpx.Client, Path]]:
    """Return a server that no test ends, its operator and the operator's socket."""
    settings = with_socket(checkpoint, tmp_path_factory.mktemp("operated"))
    with operator(settings) as (server, client):
        yield server, client, Path(settings["MEDMOE_ADMIN_SOCKET"])


def test_an_operator_drains_and_the_process_stays(settings: dict[str, str], vqa_body: dict[str, Any]) -> None:
    with operator(settings) as (server, client):
        assert client.get("/admin/status").json()["status"] == "ready"
        assert client.post("/admin/drain").json()["status"] == "draining"
        refused = httpx.post(f"{server.url}/v1/vqa", json=vqa_body, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert httpx.get(f"{server.url}/health/ready", timeout=60).status_code == 503
        assert httpx.get(f"{server.url}/health/live", timeout=60).status_code == 200
        server.process.terminate()
        assert server.process.wait(120) == 0
        assert not Path(settings["MEDMOE_ADMIN_SOCKET"]).exists()


def test_an_operator_counts_the_experts_anew(
    operated: tuple[ServerProcess, httpx.Client, Path], vqa_body: dict[str, Any]
) -> None:
    server, client, _ = operated
    assert httpx.post(f"{server.url}/v1/vqa", json=vqa_body, timeout=60).status_code == 200
    assert httpx.get(f"{server.url}/v1/router/stats", timeout=60).json()["requests"] == 1
    assert client.post("/admin/router/reset").status_code == 200
    assert httpx.get(f"{server.url}/v1/router/stats", timeout=60).json()["requests"] == 0


def test_only_the_owner_may_open_the_socket_and_the_port_has_no_such_routes(
    operated: tuple[ServerProcess, httpx.Client, Path],
) -> None:
    server, client, path = operated
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for method, route in ROUTES:
        assert httpx.request(method, f"{server.url}{route}", timeout=60).status_code == 404
    assert client.get("/admin/drain").status_code == 405
    assert client.get("/v1/router/stats").status_code == 404
    assert client.get("/admin/status").json()["status"] == "ready"


def test_a_socket_left_by_a_killed_process_is_replaced(settings: dict[str, str]) -> None:
    for _ in range(2):
        with operator(settings) as (_, client):
            assert client.get("/admin/status").status_code == 200
        # The process was killed: nobody has removed the file.
        assert Path(settings["MEDMOE_ADMIN_SOCKET"]).exists()


def test_another_ones_socket_or_file_is_left_alone(settings: dict[str, str], tmp_path: Path) -> None:
    path = Path(settings["MEDMOE_ADMIN_SOCKET"])
    path.write_text("mine")
    with pytest.raises(RuntimeError, match=r"MEDMOE_ADMIN_SOCKET.*no socket"), server_process(settings=settings):
        pass
    assert path.read_text() == "mine"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(RuntimeError, match="another process listens"), server_process(settings=settings):
            pass
        assert path.exists()
