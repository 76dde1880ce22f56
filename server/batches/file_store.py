"""Keep files on disk, each with its owner."""

import math
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO

from pydantic import BaseModel

from medmoe.server.batches.errors import FileNotFound, StorageLimit, StorageUnavailable
from medmoe.server.batches.storage import RECORD_SUFFIX, delete_each, read_records, replace, write_new, written
from medmoe.server.batches.storage_threads import Result, StorageThreads
from medmoe.server.schemas.openai.file import FileObject, FilePurpose

_DAY = 86_400
_CONTENT = ".jsonl"
_LONGEST_NAME = 255
_MOST_FILES = 10_000
"""Files of one owner. Empty ones take memory too, and each lengthens the search for the files of every owner."""


class StoredFile(BaseModel):
    """A file and its owner."""

    file: FileObject
    owner: str


def new_id(kind: str) -> str:
    """Return a random id; ids sort by the time at which they were made."""
    return f"{kind}{time.time_ns():016x}{secrets.token_hex(12)}"


class FileStore:
    """Files of all owners: a record and a content each, of which the record is written last and deleted first."""

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: float,
        max_stored_bytes: int,
        unfinished: Callable[[str], Iterable[str]],
        threads: StorageThreads,
    ) -> None:
        """Read the records in `folder`. Raises ConfigError for one that cannot be read.

        `unfinished` returns the ids of an owner's files that are still being written.
        """
        self._folder = folder
        self._retention = retention_days * _DAY
        self._max_stored_bytes = max_stored_bytes
        self._unfinished = unfinished
        self._threads = threads
        self._files: dict[str, StoredFile] = {}
        self._uploading: dict[str, tuple[str, int]] = {}
        """Owner and size of the files that are being stored."""
        for found in read_records(folder, StoredFile, of="a file"):
            self._files[found.file.id] = found

    def content(self, file_id: str) -> Path:
        """Return the path of the content of `file_id`, an id that `new_id` made."""
        return self._folder / f"{file_id}{_CONTENT}"

    async def opened(self, file_id: str, owner: str) -> BinaryIO:
        """Open the content of a file of `owner`; a deletion from now on takes nothing from it.

        Raises FileNotFound, StorageUnavailable.
        """
        self.find(file_id, owner)
        try:
            return await self._threads.in_time(self._read(lambda: self.content(file_id).open("rb")))
        except StorageUnavailable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                # It is being deleted.
                raise FileNotFound from error
            raise

    def find(self, file_id: str, owner: str, *, purpose: FilePurpose | None = None) -> FileObject:
        """Return a file of `owner`. Raises FileNotFound."""
        found = self._files.get(file_id)
        if found is None or found.owner != owner or found.file.expires_at <= time.time():
            raise FileNotFound
        if purpose not in (None, found.file.purpose):
            raise FileNotFound("this file is not the input of a batch; upload one with the purpose batch")
        return found.file

    def of_owner(self, owner: str) -> list[FileObject]:
        """Return the files of `owner`, oldest first."""
        now = time.time()
        found = (one.file for one in self._files.values() if one.owner == owner and one.file.expires_at > now)
        return sorted(found, key=lambda file: file.id)

    async def require_room(self, owner: str, size: int = 0) -> None:
        """Raise StorageLimit where `owner` may not have another file of `size` bytes, StorageUnavailable."""
        unfinished = [self.content(file_id) for file_id in self._unfinished(owner) if file_id not in self._files]
        growing = await self._read(lambda: sum(map(_size, unfinished))) if unfinished else 0
        stored = [file.bytes for file in self.of_owner(owner)]
        uploading = [announced for of, announced in self._uploading.values() if of == owner]
        if len(stored) + len(uploading) + len(unfinished) >= _MOST_FILES:
            raise StorageLimit.of_files(_MOST_FILES)
        if size + sum(stored) + sum(uploading) + growing >= self._max_stored_bytes:
            raise StorageLimit.over(self._max_stored_bytes)

    async def upload(self, source: BinaryIO, *, size: int, filename: str, owner: str, keep: int | None) -> FileObject:
        """Store the input of a batch for `keep` seconds. Raises StorageLimit, StorageUnavailable."""

        async def store() -> FileObject:
            await self.require_room(owner, size)
            file_id = new_id("file-")
            # What a thread writes is counted until it is stored or gone, also when its client has left.
            self._uploading[file_id] = owner, size
            try:
                await self._threads.do(partial(write_new, self.content(file_id), source))
                return await self.publish(file_id, owner=owner, filename=filename, purpose="batch", keep=keep)
            finally:
                del self._uploading[file_id]

        return await self._threads.in_time(store())

    async def publish(
        self, file_id: str, *, owner: str, filename: str, purpose: FilePurpose, keep: int | None
    ) -> FileObject:
        """Make a file of a content that is there. Raises StorageUnavailable; then the content of an upload is gone."""
        now = int(time.time())
        content = self.content(file_id)
        file = FileObject(
            id=file_id,
            bytes=(await self._read(content.stat)).st_size,
            created_at=now,
            expires_at=now + math.ceil(min(self._retention, keep or math.inf)),
            filename=PurePath(filename).name[:_LONGEST_NAME] or "file.jsonl",
            purpose=purpose,
        )
        stored = StoredFile(file=file, owner=owner)

        def write() -> None:
            try:
                replace(self._record(file_id), stored.model_dump_json().encode())
            except BaseException:
                if purpose == "batch":
                    content.unlink(missing_ok=True)
                raise

        await self._threads.do(write)
        self._files[file_id] = stored
        return file

    async def is_empty(self, file_id: str) -> bool:
        """Return whether a file has no content. Raises StorageUnavailable."""
        return not await self._read(partial(_size, self.content(file_id)))

    async def delete(self, file_id: str) -> None:
        """Delete a file, also where there is only its content. Raises OSError; then it can be deleted again."""
        found = self._files.pop(file_id, None)

        def unlink() -> None:
            self._record(file_id).unlink(missing_ok=True)
            self.content(file_id).unlink(missing_ok=True)

        try:
            await self._threads.do(unlink)
        except OSError:
            if found is not None:
                self._files[file_id] = found
            raise

    async def delete_expired(self, *, is_used: Callable[[str], bool]) -> None:
        """Delete the files that have expired and are not used. Raises the last OSError, after the others' deletion."""
        now = time.time()
        expired = [name for name, one in self._files.items() if one.file.expires_at <= now and not is_used(name)]
        await delete_each(expired, self.delete)

    def delete_unfinished(self, *, is_used: Callable[[str], bool]) -> None:
        """Delete the contents that an ended process left without a record. Blocks; for the start."""
        for path in self._folder.glob(f"*{_CONTENT}"):
            if path.stem not in self._files and not is_used(path.stem):
                path.unlink(missing_ok=True)

    async def _read(self, work: Callable[[], Result]) -> Result:
        """Return what `work` finds on the disk. Raises StorageUnavailable."""
        with written():
            return await self._threads.do(work)

    def _record(self, file_id: str) -> Path:
        return self._folder / f"{file_id}{RECORD_SUFFIX}"


def _size(content: Path) -> int:
    """Return the bytes of a content, 0 where there is none yet. Blocks."""
    try:
        return content.stat().st_size
    except FileNotFoundError:
        return 0
