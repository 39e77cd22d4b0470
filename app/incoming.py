"""Uploads as they come in: held in memory or streamed to disk, then put in their place.

One is written as `uploads/incoming/{job_id}.{digits}` and moved to its place once it is known to be sound; a short one,
which stays in memory until then, is written there at once. A disk that is full is one of our errors.
"""

import errno
import hashlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from app.errors import DiskFull, FileTooLarge

Buffer = bytes | memoryview

logger = logging.getLogger(__name__)

#: All uploads together; what comes beyond goes to the disk at once.
_MAX_HELD_BYTES = 32 * 2**20


class Memory:
    """Of uploads that are on their way, what stays in memory; some come by threads."""

    def __init__(self) -> None:
        self._held_bytes = 0
        self._holding = threading.Lock()

    def reserve(self, more_bytes: int) -> bool:
        """Whether so much more may be held; if so, it is `release` that gives it back."""
        with self._holding:
            fits = self._held_bytes + more_bytes <= _MAX_HELD_BYTES
            self._held_bytes += more_bytes if fits else 0
        return fits

    def release(self, held_bytes: int) -> None:
        """So much is held no longer."""
        with self._holding:
            self._held_bytes -= held_bytes


class IncomingUpload:
    """A file being received. Used as a context manager, it leaves nothing behind unless it was kept.

    A short one need not be on the disk before it is kept. Every call raises `DiskFull` where there is no room.
    """

    def __init__(  # noqa: PLR0913  # where it goes, and how much of it may
        self,
        job_id: str,
        *,
        folder: Path,
        place: Callable[[str, str], str],
        root: str,
        memory: Memory,
        max_bytes: int,
        hold_bytes: int,
    ) -> None:
        """`folder` is for what is received, `place` says where below the `root` it stays, by job id and extension."""
        self.job_id = job_id
        self.bytes = 0
        self._folder = folder
        self._place = place
        self._root = root
        self._memory = memory
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
        return self._folder / f"{self.job_id}.{own_digits()}"

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
        relative = self._place(self.job_id, extension)
        kept = f"{self._root}/{relative}"
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
        if self.bytes > self._hold_bytes or not self._memory.reserve(more_bytes):
            return False
        self._held_bytes += more_bytes
        return True

    def _let_go(self) -> None:
        self._memory.release(self._held_bytes)
        self._held_bytes = 0
        self._held.clear()

    def _spill(self) -> BinaryIO:
        """From here on write to a file."""
        with _TOLD_WHEN_FULL:
            self._file = self.path.open("xb")
            self._file.writelines(self._held)
        self._let_go()
        return self._file


def own_digits() -> str:
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
