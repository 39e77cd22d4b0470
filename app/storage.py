"""Files on disk: uploads, streamed in and renamed into place; artifacts, which come with results; both taken out again.

An upload is written as `uploads/incoming/{job_id}.{digits}` and moved to `uploads/{xx}/{job_id}{extension}` once it is
known to be sound; a short one, which stays in memory until then, is written there at once. An artifact is
`artifacts/{xx}/{job_id}/{name}`. `xx` are the id's first two digits, so that no folder grows without bound. Everything
stored has a name of ours and a path relative to the root, and no path leaves the root.
"""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from app.errors import DiskFull, FileTooLarge, InternalError

Buffer = bytes | memoryview

logger = logging.getLogger(__name__)

_UPLOADS = "uploads"
_INCOMING = "incoming"
#: All uploads together; what comes beyond goes to the disk at once.
_MAX_HELD_BYTES = 32 * 2**20
#: What parts of a path lead elsewhere than to what they name.
_NO_NAMES = ("", ".", "..")
#: No separators, no leading dot: a name that stays where it is put.
_ARTIFACT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9]{1,8}")


def _own() -> str:
    """Digits for a file that nobody else writes, though they do the same work, as a worker that was given up may."""
    return uuid.uuid4().hex[:8]


class _ToldWhenFull:
    """A disk with no room left, or none for us, is one of our errors."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            logger.warning("an upload does not fit on the disk: %s", error)
            raise DiskFull(DiskFull.SENTENCE) from None


_TOLD_WHEN_FULL = _ToldWhenFull()


def removed(removal: Callable[[], None]) -> bool:
    """Whether a removal succeeded. Files that stay must not keep anything else: the sweeper comes by for them."""
    try:
        removal()
    except OSError as error:
        logger.warning("files could not be removed: %s", error)
        return False
    return True


class Storage:
    """The files under one root. Creates its folders."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        #: The same as text, for calls of the system.
        self.root_name = str(self.root)
        self.uploads = self.root / _UPLOADS
        self.incoming_folder = self.uploads / _INCOMING
        self.artifacts = self.root / "artifacts"
        #: Of uploads that are on their way, what stays in memory; some come by threads.
        self._held_bytes = 0
        self._holding = threading.Lock()
        self.incoming_folder.mkdir(parents=True, exist_ok=True)
        self.artifacts.mkdir(exist_ok=True)

    def check_room(self, more_bytes: int, *, leave_bytes: int) -> None:
        """Raises `DiskFull` unless so much more fits on the disk, and leaves so much free."""
        if shutil.disk_usage(self.root_name).free - more_bytes < leave_bytes:
            raise DiskFull(DiskFull.SENTENCE)

    def incoming(self, job_id: str, *, max_bytes: int, hold_bytes: int = 0) -> "IncomingUpload":
        """A file to stream an upload into. One of up to `hold_bytes` stays in memory, unless many come at once."""
        return IncomingUpload(self, job_id, max_bytes=max_bytes, hold_bytes=hold_bytes)

    def reserve_memory(self, more_bytes: int) -> bool:
        """Whether so much more of uploads may be held in memory; if so, it is `release_memory` that gives it back."""
        with self._holding:
            fits = self._held_bytes + more_bytes <= _MAX_HELD_BYTES
            self._held_bytes += more_bytes if fits else 0
        return fits

    def release_memory(self, held_bytes: int) -> None:
        """So much is held no longer."""
        with self._holding:
            self._held_bytes -= held_bytes

    def upload(self, job_id: str, extension: str) -> str:
        """Where a job's upload is, or would be, relative to the root."""
        return f"{_UPLOADS}/{job_id[:2]}/{job_id}{extension}"

    def resolve(self, relative: str) -> Path:
        """The absolute path of a stored file. Raises `InternalError` for a path that leaves the root."""
        folder, _, name = relative.rpartition("/")
        path = f"{self.root_name}/{relative}"
        if not _is_plain(name) or not _holds_no_link(self.root_name, folder) or os.path.islink(path):  # noqa: PTH114
            return self._resolve_odd(relative)
        return Path(path)

    def _resolve_odd(self, relative: str) -> Path:
        path = (self.root / relative).resolve()
        if not path.is_relative_to(self.root):
            raise InternalError(InternalError.SENTENCE)
        return path

    def holds(self, relative: str) -> bool:
        """Whether a file is stored there."""
        return self.resolve(relative).is_file()

    def store_artifact(self, job_id: str, name: str, write: Callable[[BinaryIO], object]) -> int:
        """Keep a file that `write` fills, whole or not at all. Returns its size in bytes."""
        path = self.artifact(job_id, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{name}.{_own()}")
        try:
            with partial.open("wb") as file:
                write(file)
                size = file.tell()
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return size

    def artifact(self, job_id: str, name: str) -> Path:
        """Where a job's artifact is, or would be. Raises `ValueError` for a name that no artifact can have."""
        if not _ARTIFACT_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an artifact")
        return self.resolve(self._artifacts_of(job_id)) / name

    def erase(self, job_id: str) -> None:
        """Delete all files of a job, its upload and its artifacts, as far as they are there."""
        uploads = (self.root / self.upload(job_id, "")).parent
        for upload in (uploads / job_id, *uploads.glob(f"{job_id}.*")):
            upload.unlink(missing_ok=True)
        self.discard_attempts(job_id)

    def discard_attempts(self, job_id: str) -> None:
        """Delete what attempts at a job have left that came to no good end: parts of downloads, and artifacts."""
        for part in self.incoming_folder.glob(f"{job_id}.*"):
            part.unlink(missing_ok=True)
        self.remove(self._artifacts_of(job_id))

    def remove(self, relative: str) -> None:
        """Delete a stored file, or a folder with all it holds, if it is still there."""
        path = self.resolve(relative)
        while path.is_dir():
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it too; see what is left
                shutil.rmtree(path)
        path.unlink(missing_ok=True)

    def remove_spent(self, relative: str) -> None:
        """Delete an upload that was read through `resolve`, if it is still there, without looking where it is again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.root_name}/{relative}")  # noqa: PTH108  # for every job

    def _artifacts_of(self, job_id: str) -> str:
        return f"{self.artifacts.name}/{job_id[:2]}/{job_id}"

    def older_than(self, moment_s: float) -> Iterator[tuple[str, str]]:
        """Job id and relative path of what was last written before `moment_s`, in seconds since the epoch.

        That is every upload, and every folder of a job's artifacts.
        """
        for path in itertools.chain(self.uploads.glob("*/*"), self.artifacts.glob("*/*")):
            try:
                written_s = path.stat().st_mtime
            except FileNotFoundError:  # gone between the listing and now
                continue
            if written_s < moment_s:
                yield path.stem, str(path.relative_to(self.root))


def _is_plain(name: str) -> bool:
    return name not in _NO_NAMES and "\0" not in name


@lru_cache(maxsize=1024)
def _holds_no_link(root: str, folder: str) -> bool:
    """Whether a folder below a resolved root is what its name says. They are ours and stay, so each is seen once."""
    path = root
    for part in folder.split("/"):
        path = f"{path}/{part}"
        if not _is_plain(part) or os.path.islink(path):  # noqa: PTH114  # as the paths of files
            return False
    return True


def _write_new(path: str, pieces: Iterable[Buffer]) -> None:
    """Write a file that is not there yet; nothing is left of one that cannot be written whole.

    By calls of the system, since this is done for every job: Python's files ask three questions first.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            for piece in pieces:
                written = 0
                while written < len(piece):
                    written += os.write(descriptor, memoryview(piece)[written:])
        finally:
            os.close(descriptor)
    except BaseException:
        os.unlink(path)  # noqa: PTH108  # as it was made
        raise


class IncomingUpload:
    """A file being received. Used as a context manager, it leaves nothing behind unless it was kept.

    A short one need not be on the disk before it is kept. Every call raises `DiskFull` where there is no room.
    """

    def __init__(self, storage: Storage, job_id: str, *, max_bytes: int, hold_bytes: int) -> None:
        self.job_id = job_id
        self.bytes = 0
        self._storage = storage
        self._max_bytes = max_bytes
        self._hold_bytes = hold_bytes
        self._hash = hashlib.sha256()
        #: What has come, until there is a file.
        self._held: list[Buffer] = []
        self._held_bytes = 0
        self._file: BinaryIO | None = None
        self._kept = False

    @cached_property
    def path(self) -> Path:
        """Where it is while it is received, unless it stays in memory."""
        return self._storage.incoming_folder / f"{self.job_id}.{_own()}"

    @property
    def content(self) -> Path | bytes:
        """What was written, once that is finished: a file, or what stayed in memory."""
        return b"".join(self._held) if self._file is None else self.path

    @property
    def sha256(self) -> str:
        """Hex digest of what has been written."""
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        if not self._hold_bytes:
            self._spill()
        return self

    def write(self, chunk: Buffer) -> None:
        """Append. Raises `FileTooLarge` once more than `max_bytes` have come."""
        self.bytes += len(chunk)
        if self.bytes > self._max_bytes:
            raise FileTooLarge(f"The file is larger than {self._max_bytes} bytes. Send a smaller one.")
        self._hash.update(chunk)
        if self._file is None and self._may_hold(len(chunk)):
            self._held.append(bytes(chunk))
            return
        file = self._file or self._spill()
        with _TOLD_WHEN_FULL:
            file.write(chunk)

    def finish(self) -> None:
        """Flush and close; `content` is there from now on."""
        if self._file is not None:
            with _TOLD_WHEN_FULL:
                self._file.close()

    def keep(self, extension: str) -> str:
        """Put the file in its place, where nobody looks for it yet. Returns its path relative to the root."""
        relative = self._storage.upload(self.job_id, extension)
        kept = f"{self._storage.root_name}/{relative}"
        with _TOLD_WHEN_FULL:
            try:
                self._put(kept)
            except FileNotFoundError:  # the first of its folder
                Path(kept).parent.mkdir(exist_ok=True)
                self._put(kept)
        self._kept = True
        return relative

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()
        try:
            self.finish()
        finally:
            if self._file is not None and not self._kept:
                self.path.unlink(missing_ok=True)

    def _put(self, kept: str) -> None:
        if self._file is None:
            _write_new(kept, self._held)
        else:
            self.path.rename(kept)

    def _may_hold(self, more_bytes: int) -> bool:
        if self.bytes > self._hold_bytes or not self._storage.reserve_memory(more_bytes):
            return False
        self._held_bytes += more_bytes
        return True

    def _let_go(self) -> None:
        self._storage.release_memory(self._held_bytes)
        self._held_bytes = 0
        self._held.clear()

    def _spill(self) -> BinaryIO:
        """From here on write to a file."""
        with _TOLD_WHEN_FULL:
            self._file = self.path.open("xb")
            self._file.writelines(self._held)
        self._let_go()
        return self._file
