"""The page at `/` as a browser gets it: every file, from here alone, under a policy that lets nothing else in."""

import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import medmoe.server
from medmoe.server.auth.key_file import new_key
from tests.integration.conftest import Service, ServiceFactory, check

FOLDER = Path(medmoe.server.__path__[0]) / "page"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
ROOT = Path(__file__).parents[3]
ADDRESSES = {name: "/" if name == "index.html" else f"/page/{name}" for name in FILES}
TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png",
    ".dcm": "application/dicom",
}  # fmt: skip
TEXTS = [name for name in FILES if not name.endswith((".png", ".dcm"))]
MAX_SAMPLE_BYTES = 100_000
LONGEST = 300


def policy(headers: "dict[str, str] | object") -> dict[str, str]:
    text = headers["content-security-policy"]  # type: ignore[index]
    return dict((part.strip() + " ").split(" ", 1) for part in text.split(";"))


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_as_what_it_is(service: Service, name: str) -> None:
    response = await service.client.get(ADDRESSES[name])
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"].split(";")[0] == TYPES[Path(name).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("name", FILES)
async def test_the_policy_lets_in_nothing_from_elsewhere_and_nothing_inline(service: Service, name: str) -> None:
    found = policy((await service.client.get(ADDRESSES[name])).headers)
    assert found["default-src"].strip() == "'none'"
    assert found["script-src"].strip() == found["style-src"].strip() == found["connect-src"].strip() == "'self'"
    assert set(found["img-src"].split()) == {"'self'", "data:", "blob:"}
    for directive in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert found[directive].strip() == "'none'"
    assert found["require-trusted-types-for"].strip() == "'script'"


@pytest.mark.parametrize("name", FILES)
async def test_a_browser_asks_again_and_is_told_that_nothing_has_changed(service: Service, name: str) -> None:
    first = await service.client.get(ADDRESSES[name])
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await service.client.get(ADDRESSES[name], headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert policy(again.headers) == policy(first.headers)
    other = await service.client.get(ADDRESSES[name], headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize("name", FILES)
async def test_head_says_what_get_would(service: Service, name: str) -> None:
    head, got = await service.client.head(ADDRESSES[name]), await service.client.get(ADDRESSES[name])
    assert head.status_code == 200
    for header in ("content-type", "content-length", "etag", "cache-control", "content-security-policy"):
        assert head.headers[header] == got.headers[header]


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/..%2fapp.py", "/page/%2e%2e%2fapp.py", "/page/a/b.js"]
)
async def test_there_are_no_other_files(service: Service, path: str) -> None:
    check(await service.client.get(path), 404, "not_found")


async def test_the_page_takes_no_other_methods(service: Service) -> None:
    check(await service.client.post("/"), 405, "method_not_allowed")


async def test_the_page_is_not_part_of_the_api(service: Service) -> None:
    paths = (await service.client.get("/openapi.json")).json()["paths"]
    assert not {path for path in paths if path == "/" or path.startswith("/page")}


async def test_with_keys_the_page_is_open_and_what_it_asks_for_is_not(running: ServiceFactory, tmp_path: Path) -> None:
    _, line = new_key("ward")
    (tmp_path / "keys").write_text(line)
    async with running(api_keys=tmp_path / "keys") as service:
        for address in ADDRESSES.values():
            assert (await service.client.get(address)).status_code == 200
        for path in ("/v1/metadata", "/v1/model-card", "/openapi.json"):
            check(await service.client.get(path), 401, "invalid_api_key")
        for path in ("/v1/vqa", "/v1/classify", "/v1/render"):
            check(await service.client.post(path), 401, "invalid_api_key")


@pytest.mark.parametrize("name", TEXTS)
def test_no_file_names_another_host(name: str) -> None:
    text = (FOLDER / name).read_text()
    for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text):
        # A name of a language, which nobody fetches.
        assert name.endswith(".svg"), address
        assert address == "http://www.w3.org", address
    for forbidden in ("localStorage", "sessionStorage", "indexedDB", "document.cookie", "innerHTML", "eval("):
        assert forbidden not in text


def test_what_files_name_is_there() -> None:
    named = set(re.findall(r'"page/([\w./-]+)"', (FOLDER / "index.html").read_text()))
    for name in FILES:
        if name.endswith(".js"):
            for path in re.findall(r'from "(\.{1,2}/[\w./]+)"', (FOLDER / name).read_text()):
                named.add((FOLDER / name).parent.joinpath(path).resolve().relative_to(FOLDER).as_posix())
    assert named | {"index.html"} == set(FILES)


def test_scripts_find_what_they_look_for() -> None:
    html = (FOLDER / "index.html").read_text()
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    assert len(ids) == len(re.findall(r'\bid="', html))
    for name in FILES:
        if name.endswith(".js"):
            assert set(re.findall(r'find\("([\w-]+)"\)', (FOLDER / name).read_text())) <= ids, name


def test_nothing_is_inline() -> None:
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert not re.findall(r"<script(?![^>]*\ssrc=)", html)


def test_the_notice_is_in_the_page_itself() -> None:
    assert "Research software, not a medical device." in (FOLDER / "index.html").read_text()


def test_folders_stay_small() -> None:
    assert max(Counter(Path(name).parent for name in FILES).values()) <= 12


def test_files_stay_short() -> None:
    assert not {name for name in TEXTS if len((FOLDER / name).read_text().splitlines()) > LONGEST}
    assert not {name for name in FILES if (FOLDER / name).stat().st_size > MAX_SAMPLE_BYTES}


def test_a_wheel_holds_them_all() -> None:
    """As setuptools finds them, without the minute that packing the checkpoint takes."""
    code = """
        from setuptools import Distribution
        found = Distribution()
        found.parse_config_files(["pyproject.toml"])
        found.include_package_data = False
        command = found.get_command_obj("build_py")
        command.ensure_finalized()
        print(*[name for package, _, _, names in command.data_files if package == "medmoe.server" for name in names])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {f"page/{name}" for name in FILES} <= set(listed)
