"""A key file is read for each request."""

from pathlib import Path

import httpx
import pytest

from medmoe.client import Client


def shown(path: Path, *contents: str | None) -> list[str]:
    """Return what a client shows for each content of its file; None: the file is gone."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization", ""))
        return httpx.Response(200, text="# Card")

    path.write_text("mm-first\n")
    with Client("http://service", api_key=path, transport=httpx.MockTransport(answer)) as client:
        for content in contents:
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_text(content)
            client.model_card()
    return seen


def test_a_rotated_key_is_shown_from_the_next_request_on(tmp_path: Path) -> None:
    assert shown(tmp_path / "key", "mm-first\n", "mm-second\n") == ["Bearer mm-first", "Bearer mm-second"]


def test_a_file_that_is_being_replaced_changes_nothing(tmp_path: Path) -> None:
    broken = ("mm-second", None, "", "not a key at all", "\udcff".encode(errors="surrogateescape").decode("latin-1"))
    assert shown(tmp_path / "key", *broken) == ["Bearer mm-second"] * len(broken)


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be read"), ("", "no key"), ("a key", "characters")])
def test_a_file_without_a_key_is_refused_at_once(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=reason) as refused:
        Client("http://service", api_key=path)
    assert "a key" not in str(refused.value).replace(str(path), "")


def test_a_key_in_the_place_of_its_file_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="the key file cannot be read") as refused:
        Client("http://service", api_key=Path("mm-secret"))
    assert "mm-secret" not in str(refused.value)
