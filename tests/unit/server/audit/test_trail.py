"""A trail on disk: whatever is changed in it is found, and a broken write harms only itself."""

import errno
import hashlib
import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from medmoe.model.errors import ConfigError
from medmoe.server.audit.audit_event import audit_event
from medmoe.server.audit.errors import AuditError
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.segment_writer import SegmentWriter, WriteFailed
from medmoe.server.audit.trail import AuditTrail
from medmoe.server.audit.verify import read_trail, verify_trail
from medmoe.server.schemas.series import MAX_SLICES
from medmoe.server.settings import Settings

OPENING = {"event": "start"}


@pytest.fixture
def keys(tmp_path: Path) -> AuditKeys:
    path = tmp_path / "audit.key"
    path.write_text("1f" * 32 + "\n")
    return AuditKeys.from_file(path, named_by="MEDMOE_AUDIT_KEY")


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "trail"


Open = Callable[..., SegmentWriter]


@pytest.fixture
def opened(trail: Path, keys: AuditKeys) -> Open:
    def factory(*, segment_bytes: int = 2**20, fsync: bool = False) -> SegmentWriter:
        return SegmentWriter(trail, key=keys.chain, segment_bytes=segment_bytes, fsync=fsync)

    return factory


def events(directory: Path) -> list[Any]:
    return [record.fields["event"] for record in read_trail(directory)]


def write(writer: SegmentWriter, *names: str) -> None:
    writer.append([{"event": name} for name in names], opening=OPENING)


def test_a_trail_goes_on_over_segments_and_starts(trail: Path, opened: Open, keys: AuditKeys) -> None:
    for start in range(2):
        writer = opened(segment_bytes=600)
        for number in range(3):
            write(writer, f"{start}{number}")
        writer.close()
    assert events(trail) == ["start", "00", "01", "02", "start", "10", "11", "12"]
    found = verify_trail(trail, keys=keys)
    assert (found.records, found.starts, found.interrupted) == (8, 2, 0)
    assert found.segments == len(list(trail.glob("audit-*.jsonl"))) == 4
    assert [record.n for record in read_trail(trail)] == list(range(8))
    assert all(one.hash == two.prev for one, two in pairwise(read_trail(trail)))


@pytest.fixture
def small(trail: Path, opened: Open) -> Path:
    """Five records in two segments."""
    writer = opened(segment_bytes=800)
    write(writer, "a", "b", "c", "d")
    writer.close()
    (trail / "lock").unlink()
    return trail


def test_every_changed_byte_is_found(small: Path) -> None:
    bits = random.Random(7)
    for path in sorted(small.iterdir()):
        right = path.read_bytes()
        for place in range(len(right)):
            wrong = bytearray(right)
            wrong[place] ^= 1 << bits.randrange(8)
            path.write_bytes(wrong)
            with pytest.raises(AuditError):
                verify_trail(small)
        path.write_bytes(right)
    assert verify_trail(small).records == 5


def test_every_cut_is_found_with_the_head_that_was_printed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmoe.server.audit.verify._LOOK_SECONDS", 0.0)
    head = verify_trail(small).head
    *_, last = sorted(small.iterdir())
    right = last.read_bytes()
    for length in range(len(right)):
        last.write_bytes(right[:length])
        with pytest.raises(AuditError):
            verify_trail(small, head=head)
    last.unlink()
    with pytest.raises(AuditError, match="records after line 3 of the trail are missing"):
        verify_trail(small, head=head)
    last.write_bytes(right)
    assert verify_trail(small, head=head).head == head


def test_lines_that_are_removed_repeated_or_reordered_are_found(small: Path) -> None:
    paths = sorted(small.iterdir())
    lines = [line for path in paths for line in path.read_bytes().splitlines(keepends=True)]
    for path in paths[1:]:
        path.unlink()
    n = len(lines)
    orders = [[*range(i), *range(i + 1, n)] for i in range(n - 1)]
    orders += [[*range(i + 1), i, *range(i + 1, n)] for i in range(n)]
    orders += [[*range(i), i + 1, i, *range(i + 2, n)] for i in range(n - 1)]
    paths[0].write_bytes(b"".join(lines))
    assert verify_trail(small).records == n
    for order in orders:
        paths[0].write_bytes(b"".join(lines[i] for i in order))
        with pytest.raises(AuditError, match=r"audit-000001.jsonl, line \d: it does not follow"):
            verify_trail(small)


def test_a_missing_segment_is_named(small: Path, opened: Open) -> None:
    first, second = sorted(small.iterdir())
    head = [*read_trail(small)][2].hash
    first.unlink()
    with pytest.raises(AuditError, match="segment 1 is missing"):
        verify_trail(small)
    # Archived, and its last hash kept.
    assert verify_trail(small, after=head).records == 2
    with pytest.raises(AuditError, match="line 1: it does not follow"):
        verify_trail(small, after="a" * 64)
    second.rename(second.with_name("audit-000003.jsonl"))
    with pytest.raises(AuditError, match="segment 1 is missing"):
        verify_trail(small)


def test_a_chain_made_without_the_key_is_found_with_it(trail: Path, keys: AuditKeys) -> None:
    writer = SegmentWriter(trail, key=b"another", segment_bytes=2**20, fsync=False)
    write(writer, "a")
    writer.close()
    assert verify_trail(trail).records == 2
    with pytest.raises(AuditError, match="not written with this key"):
        verify_trail(trail, keys=keys)


def test_a_line_that_is_being_written_is_waited_for(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page cache shows a line that crosses a page."""
    head = verify_trail(small).head
    *_, last = sorted(small.iterdir())
    whole = last.read_bytes()
    for length in (1, len(whole) - 1, len(whole) - 100):
        last.write_bytes(whole[:length])
        monkeypatch.setattr("medmoe.server.audit.verify.time.sleep", lambda _: last.write_bytes(whole))
        assert verify_trail(small, head=head).records == 5


@pytest.mark.parametrize("left", [1, 20, 200])
def test_a_line_that_a_crash_broke_off_is_marked_by_the_next_start(
    trail: Path, opened: Open, keys: AuditKeys, left: int
) -> None:
    writer = opened()
    write(writer, "a", "b")
    writer.close()
    path = trail / "audit-000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:left])
    with pytest.raises(AuditError, match=r"line 3: it is incomplete"):
        verify_trail(trail)
    writer = opened()
    write(writer, "c")
    writer.close()
    assert events(trail) == ["start", "a", "start", "c"]
    assert verify_trail(trail, keys=keys).interrupted == 1
    kept = path.read_bytes()
    assert kept.endswith(lines[2][:left]), "nothing is deleted"
    for changed in (kept[:-1], kept + b"x", kept[: -left - 1] + b"\n"):
        path.write_bytes(changed)
        with pytest.raises(AuditError):
            verify_trail(trail)


def test_crashes_at_every_byte_of_two_starts(trail: Path, opened: Open) -> None:
    writer = opened()
    write(writer, "a")
    writer.close()
    path = trail / "audit-000002.jsonl"
    for left in (0, 1, 100, 200):
        for old in sorted(trail.glob("audit-*.jsonl"))[1:]:
            old.unlink()
        path.write_bytes(b"{" * left)
        for _ in range(2):
            writer = opened()
            write(writer, "b")
            writer.close()
        assert events(trail) == ["start", "a", "start", "b", "start", "b"]


def test_a_damaged_last_line_is_not_built_upon(trail: Path, opened: Open) -> None:
    writer = opened()
    write(writer, "a")
    writer.close()
    path = trail / "audit-000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    with pytest.raises(AuditError, match=r"audit-000001.jsonl, last line: its bytes do not have its hash"):
        opened()


def test_a_trail_is_not_gone_on_with_under_another_key(trail: Path, opened: Open, keys: AuditKeys) -> None:
    writer = opened()
    write(writer, "a")
    writer.close()
    with pytest.raises(AuditError, match=r"audit-000001.jsonl, last line: it was not written with this key"):
        SegmentWriter(trail, key=b"another", segment_bytes=2**20, fsync=False)
    write(opened(), "b")
    assert verify_trail(trail, keys=keys).records == 4


@pytest.mark.parametrize("left", [b"", b'{"n":'])
def test_a_trail_whose_last_record_was_moved_away_is_not_begun_again(trail: Path, opened: Open, left: bytes) -> None:
    writer = opened(segment_bytes=600)
    write(writer, "a", "b")
    writer.close()
    head = verify_trail(trail).head
    # Killed as it began another file; then all but the newest are archived.
    (trail / "audit-000003.jsonl").write_bytes(left)
    kept = {path: path.read_bytes() for path in trail.glob("audit-00000[12].jsonl")}
    for path in kept:
        path.unlink()
    with pytest.raises(AuditError, match="no file holds a record, and segment 2 is missing"):
        opened()
    last = max(kept)
    last.write_bytes(kept[last])
    writer = opened()
    write(writer, "c")
    writer.close()
    last.unlink()
    assert verify_trail(trail, after=head).records == 2


def test_the_record_of_the_longest_series_is_read_again(trail: Path, opened: Open, keys: AuditKeys) -> None:
    digests = dict.fromkeys(("image", "study", "series", "instance"), "f" * 64)
    writer = opened()
    # Each slice, and the one whose window all have.
    writer.append([{"event": "request", "images": [digests] * (MAX_SLICES + 1)}], opening=OPENING)
    writer.close()
    assert verify_trail(trail, keys=keys).records == 2


@pytest.mark.parametrize(
    "inserted", [b'"torn":7,', b'"deep":' + b"[" * 20_000 + b"]" * 20_000 + b","], ids=["torn", "deep"]
)
def test_a_forged_line_is_refused_by_name(trail: Path, opened: Open, inserted: bytes) -> None:
    writer = opened()
    write(writer)
    writer.close()
    path = trail / "audit-000001.jsonl"
    signed = path.read_bytes().replace(b'"event"', inserted + b'"event"').rpartition(b',"hash"')[0]
    path.write_bytes(signed + b',"hash":"' + hashlib.sha256(signed).hexdigest().encode() + b'"}\n')
    with pytest.raises(AuditError, match=r"audit-000001.jsonl, line 1: "):
        verify_trail(trail)


def test_a_service_with_a_damaged_trail_names_the_setting(trail: Path, opened: Open, keys: AuditKeys) -> None:
    writer = opened()
    write(writer, "a")
    writer.close()
    (trail / "audit-000001.jsonl").write_bytes(b"changed\n")
    settings = Settings(audit_dir=trail, audit_key=trail.parent / "audit.key")
    with pytest.raises(
        ConfigError, match=r"MEDMOE_AUDIT_DIR: .*audit-000001.jsonl, last line: it is not a record; keep"
    ):
        AuditTrail.of(settings, keys, count_failures=lambda _: None)


def test_a_change_of_the_checkpoint_is_exported_with_its_caller(trail: Path, opened: Open) -> None:
    change = {"event": "checkpoint", "action": "activate", "checkpoint": "new", "subject": "0f3a", "time": "now"}
    writer = opened()
    writer.append([change], opening=OPENING | {"time": "now"})
    writer.close()
    start, found = map(audit_event, read_trail(trail))
    assert start["agent"] == [{"who": {"display": "medmoe"}, "requestor": False}]
    assert start["type"]["code"] == found["type"]["code"] == "110100"
    assert found["agent"] == [
        {"who": {"identifier": {"system": "urn:medmoe:subject", "value": "0f3a"}}, "requestor": True}
    ]
    assert found["outcomeDesc"] == "checkpoint activate new"


@pytest.mark.parametrize(("status", "outcome"), [(200, "0"), (400, "4"), (499, "4"), (500, "8"), (503, "8")])
def test_a_request_is_exported_with_its_outcome(trail: Path, opened: Open, status: int, outcome: str) -> None:
    names = ("time", "error", "subject", "request_id", "weights_sha256", "calibrated", "abstained", "duration_seconds")
    request = dict.fromkeys(names) | {"event": "request", "method": "POST", "route": "/v1/vqa", "images": []}
    writer = opened()
    writer.append([request | {"status": status}], opening=OPENING | {"time": "now"})
    writer.close()
    _, found = map(audit_event, read_trail(trail))
    assert (found["type"]["code"], found["outcome"], found["outcomeDesc"]) == ("rest", outcome, f"request {status}")


@pytest.mark.parametrize("left", [b"", b'{"n":'])
def test_a_trail_whose_first_record_was_broken_off_goes_on(trail: Path, opened: Open, left: bytes) -> None:
    trail.mkdir()
    (trail / "audit-000001.jsonl").write_bytes(left)
    writer = opened()
    write(writer, "a")
    writer.close()
    found = verify_trail(trail)
    assert (found.records, found.interrupted) == (2, bool(left))


def test_two_processes_do_not_write_one_trail(opened: Open) -> None:
    writer = opened()
    with pytest.raises(ConfigError, match="MEDMOE_AUDIT_DIR: another process writes the audit trail"):
        opened()
    writer.close()
    opened().close()


@pytest.mark.parametrize("fsync", [False, True])
def test_a_full_disk_loses_only_what_did_not_fit(
    trail: Path, opened: Open, keys: AuditKeys, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    real, room = os.write, 700

    def limited(descriptor: int, data: Any) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, bytes(data)[:room])
        room -= written
        return written

    writer = opened(fsync=fsync)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        with pytest.raises(WriteFailed) as failed:
            write(writer, "a", "b", "c", "d")
        assert isinstance(failed.value.__cause__, OSError)
        assert failed.value.written == 1
        for _ in range(3):
            with pytest.raises(WriteFailed):
                write(writer, "e")
        assert len(list(trail.glob("audit-*.jsonl"))) == 2, "attempts without room use one file"
    writer.append([{"event": "f"}], opening={"event": "resume"})
    writer.close()
    assert events(trail) == ["start", "a", "resume", "f"]
    assert verify_trail(trail, keys=keys).interrupted == 1


def test_a_real_full_disk(trail: Path, opened: Open, keys: AuditKeys) -> None:
    """/dev/full takes no byte."""
    writer = opened()
    write(writer, "a")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    os.dup2(descriptor, writer._descriptor or 0)
    os.close(descriptor)
    with pytest.raises(WriteFailed):
        write(writer, "b")
    write(writer, "c")
    writer.close()
    assert events(trail) == ["start", "a", "start", "c"]


def test_a_segment_that_is_a_link_is_not_followed(trail: Path, opened: Open, tmp_path: Path) -> None:
    writer = opened()
    target = tmp_path / "target"
    (trail / "audit-000001.jsonl").symlink_to(target)
    with pytest.raises(WriteFailed):
        write(writer, "a")
    assert not target.exists()
    writer.close()


def test_an_empty_directory_is_no_trail(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="holds no audit trail"):
        verify_trail(tmp_path)


@pytest.mark.parametrize("text", ["", "1f" * 31, "xy" * 32, "1f" * 33])
def test_a_key_file_is_64_hexadecimal_digits(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"MEDMOE_AUDIT_KEY: .*openssl rand -hex 32"):
        AuditKeys.from_file(path, named_by="MEDMOE_AUDIT_KEY")


def test_a_key_in_the_place_of_its_file_is_not_quoted() -> None:
    secret = "1f" * 32
    with pytest.raises(ConfigError, match=r"--key-file: the key file cannot be read") as refused:
        AuditKeys.from_file(Path(secret), named_by="--key-file")
    assert secret not in str(refused.value)


def test_keys_for_one_purpose_are_none_for_another(keys: AuditKeys) -> None:
    """A client that sends a record as an image learns nothing about its seal."""
    assert len({keys.chain, keys.image, keys.uid}) == 3
    assert keys.image_digest(b"1.2.3") != keys.uid_digest("1.2.3")
    assert keys.chain.hex() not in repr(keys)
