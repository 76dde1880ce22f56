"""Series in the clients and on the command line."""

import json
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from medmoe.client import (
    AsyncClient,
    BadRequest,
    Client,
    InvalidInput,
    Series,
    SeriesAnswer,
    SeriesClassification,
    SeriesStarted,
    SliceDone,
)
from tests.integration.conftest import Medmoe, Service
from tests.support.images.series_files import archive, ct_series, ct_slice
from tests.support.service.server_process import ServerProcess

QUESTION = "Is there a fracture?"
FILES = ct_series(range(6))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DICOM files below one folder, beside others."""
    for index, file in enumerate(FILES):
        path = tmp_path / "DOE^JANE" / f"{9 - index}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file[132 if index == 2 else 0 :])
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes.txt").write_text("none of it")
    return tmp_path


async def test_the_client_asks_about_a_series(service: Service, folder: Path) -> None:
    transport = httpx.ASGITransport(app=service.app)
    async with AsyncClient("http://service", api_key="", transport=transport) as client:
        answer = await client.ask_series(folder, QUESTION, slices=3, aggregate="majority")
        assert isinstance(answer, SeriesAnswer)
        assert (answer.rule, answer.series.sampled) == ("majority", (1, 3, 5))
        assert [one.file for one in answer.slices] == [4, 2, 0]
        for source in (archive(FILES), FILES, [folder / "DOE^JANE" / f"{index}.dcm" for index in range(4, 10)]):
            found = await client.classify_series(source, ["yes", "no"], mode="multi_label", slices=2)
            assert isinstance(found, SeriesClassification)
            assert (found.rule, found.series.sampled) == ("max", (1, 4))
        async with aclosing(client.stream_ask_series(FILES, QUESTION, slices=2)) as events:
            kinds = [type(event) async for event in events]
        assert kinds == [SeriesStarted, SliceDone, SliceDone, SeriesAnswer]
        async with aclosing(client.stream_classify_series(FILES, ["yes", "no"], slices=2)) as events:
            assert isinstance([event async for event in events][-1], SeriesClassification)
        with pytest.raises(BadRequest) as refused:
            await client.ask_series(FILES[:1], QUESTION)
        assert refused.value.code == "not_a_volume"
        with pytest.raises(BadRequest) as refused:
            await client.ask_series(Series(source="pacs", study="1.2", series="1.3"), QUESTION)
        assert refused.value.code == "source_not_found"
        for nothing in ([], folder / "nowhere", folder / "empty"):
            (folder / "empty").mkdir(exist_ok=True)
            with pytest.raises(InvalidInput):
                await client.ask_series(nothing, QUESTION)
        with pytest.raises(TypeError):
            await client.ask_series(FILES, QUESTION, slice=3)  # type: ignore[call-arg]


def test_the_command_line(server: ServerProcess, medmoe: Medmoe, folder: Path) -> None:
    with Client(server.url) as client:
        expected = client.ask_series(folder, QUESTION, slices=3)
        assert [type(event) for event in client.stream_ask_series(folder, QUESTION, slices=3)][-1] is SeriesAnswer
    done = medmoe("series", folder, QUESTION, "--slices", "3", url=server.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected.answer
    assert f"best slice {expected.best_slice}" in done.stderr
    assert str(folder / "DOE^JANE" / f"{9 - expected.best_slice}.dcm") in done.stderr
    assert "ordered by position; window 39.5/399" in done.stderr
    packed = folder / "series.zip"
    packed.write_bytes(archive(FILES))
    done = medmoe("series", packed, "--label", "yes", "--label", "no", "--aggregate", "max", "--json", url=server.url)
    found = SeriesClassification.model_validate(json.loads(done.stdout))
    assert (found.rule, len(found.slices)) == ("max", 6)
    done = medmoe("series", packed, "--label", "yes", "--label", "no", url=server.url)
    assert "mean probability" in done.stdout
    asked = (packed, "--label", "yes", "--label", "no", "--json", "--finding")
    of_no = SeriesClassification.model_validate(json.loads(medmoe("series", *asked, "no", url=server.url).stdout))
    assert (of_no.rule, of_no.best_slice) == ("max", found.probabilities[1].best_slice)
    assert medmoe("series", *asked, "maybe", url=server.url).returncode == 2
    (folder / "torn.dcm").write_bytes(FILES[0][:400])
    done = medmoe("series", folder, QUESTION, url=server.url)
    assert done.returncode == 1
    assert str(folder / "torn.dcm") in done.stderr.splitlines()[0]
    (folder / "torn.dcm").unlink()
    (folder / "DOE^JANE" / "x.dcm").write_bytes(ct_slice(60))
    done = medmoe("series", folder, QUESTION, url=server.url)
    assert done.returncode == 1
    assert "missing_slices" in done.stderr
    assert medmoe("series", folder, QUESTION, "--allow-irregular", url=server.url).returncode == 0
    for wrong in ([folder], [QUESTION, "--source", "pacs"], [folder, QUESTION, "more"], []):
        assert medmoe("series", *wrong, url=server.url).returncode == 2
