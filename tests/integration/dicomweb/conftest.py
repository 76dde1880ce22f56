"""A PACS with one drawn CT, and the files that name sources to the service."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images.phantom import chest_ct_file
from tests.support.service.orthanc import PASSWORD, USER, Orthanc, orthanc

CT = chest_ct_file(64)
STUDY, SERIES, INSTANCE = (f"1.2.826.0.1.3680043.8.498.{number}" for number in (2, 3, 1))
REFERENCE = {"source": "pacs", "study": STUDY, "series": SERIES, "instance": INSTANCE}

SourcesFile = Callable[..., Path]


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        running.add(CT)
        yield running


@pytest.fixture
def sources_file(tmp_path: Path) -> SourcesFile:
    """Return a function that writes a file with one source, `pacs`."""

    def write(url: str, **entries: str | bool) -> Path:
        (tmp_path / "password").write_text(f"{USER}:{PASSWORD}\n")
        lines = [
            f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
            for name, value in entries.items()
        ]
        path = tmp_path / "sources.toml"
        path.write_text("\n".join(["[pacs]", f'url = "{url}"', 'password_file = "password"', *lines, ""]))
        return path

    return write
