"""Files on disk: uploads, which `app.incoming` puts there; artifacts, which come with results; both taken out again.

An upload is `uploads/{xx}/{job_id}{extension}`; while it is received it may be `uploads/incoming/{job_id}.{digits}`. An
artifact is `artifacts/{xx}/{job_id}/{name}`. `xx` are the id's first two digits, so that no folder grows without bound.
Everything stored has a name of ours and a path relative to the root, and no path leaves the root.
"""

import contextlib
import itertools
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from app.errors import DiskFull, InternalError
from app.folders import spread
from app.incoming import IncomingUpload, Memory, own_digits

logger = logging.getLogger(__name__)

#: How long the disk is taken for as free as it was: the system is not asked for every upload.
_FREE_FOR_S = 0.1
_UPLOADS = "uploads"
_INCOMING = "incoming"
#: What parts of a path lead elsewhere than to what they name.
_NO_NAMES = ("", ".", "..")
#: No separators, no leading dot: a name that stays where it is put.
_ARTIFACT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9]{1,8}")


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
        self._memory = Memory()
        self._free_bytes = 0
        self._free_until_s = 0.0
        for folder in (self.uploads, self.artifacts):
            folder.mkdir(parents=True, exist_ok=True)
            spread(folder)
        self.incoming_folder.mkdir(exist_ok=True)

    def check_room(self, more_bytes: int, *, leave_bytes: int) -> None:
        """Raises `DiskFull` unless so much more fits on the disk, and leaves so much free, or did a moment ago."""
        now_s = time.monotonic()
        if now_s >= self._free_until_s:
            self._free_bytes = shutil.disk_usage(self.root_name).free
            self._free_until_s = now_s + _FREE_FOR_S
        if self._free_bytes - more_bytes < leave_bytes:
            raise DiskFull(DiskFull.SENTENCE)

    def incoming(self, job_id: str, *, max_bytes: int, hold_bytes: int = 0) -> IncomingUpload:
        """A file to stream an upload into. One of up to `hold_bytes` stays in memory, unless many come at once."""
        return IncomingUpload(
            job_id,
            folder=self.incoming_folder,
            place=self.upload,
            root=self.root_name,
            memory=self._memory,
            max_bytes=max_bytes,
            hold_bytes=hold_bytes,
        )

    def upload(self, job_id: str, extension: str) -> str:
        """Where a job's upload is, or would be, relative to the root."""
        return f"{_UPLOADS}/{job_id[:2]}/{job_id}{extension}"

    def resolve(self, relative: str) -> Path:
        """The absolute path of a stored file. Raises `InternalError` for a path that leaves the root."""
        # The root is resolved; a plain path below it is looked through for links, and no more than that.
        path, *parts = self.root_name, *relative.split("/")
        for part in parts:
            path = f"{path}/{part}"
            if part in _NO_NAMES or "\0" in part or os.path.islink(path):  # noqa: PTH114  # for every job
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
        partial = path.with_name(f".{name}.{own_digits()}")
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
