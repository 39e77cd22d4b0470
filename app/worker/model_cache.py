"""What is made once of a model's weights and kept: `{STORAGE_ROOT}/model-cache/{key}/`, which every process maps.

ask for it → it is there and sound: that → else one process makes it, the others wait, and all have the same.

A folder is made beside its place and renamed, so that it is there whole or not at all. What has changed since, as after
a power failure, does not match its list of digests and is made anew: a process that reads past the end of a mapped file
is killed.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from app.config import Settings
from app.worker.sources import Source

logger = logging.getLogger(__name__)

#: Folder under the storage root.
_FOLDER = "model-cache"
_DIGESTS = "digests.json"
#: Changed when what this code makes of the same weights changes.
_FORMAT = 1
#: What no process has asked for in so long belongs to weights or versions that are no longer in use.
_UNUSED_S = 30 * 86_400


class ModelCache:
    """The kept folders of an installation, which all its workers share. Every call raises `OSError` as disks do."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.storage_root / _FOLDER
        self._min_free = settings.min_free_disk

    def keep(self, source: Source, made_by: Mapping[str, object], make: Callable[[Path], None]) -> Path:
        """The folder that `make` has filled for this model, now or before.

        `made_by` is all that the content depends on beside the model's files. Raises what `make` raises.
        """
        folder = self._root / _key(source, made_by)
        self._root.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_SH):
            sound = _is_sound(folder)
        if not sound:
            with self._locked(fcntl.LOCK_EX):
                if not _is_sound(folder):  # nobody else has made it since
                    self._make(folder, make)
        with contextlib.suppress(OSError):  # another user's, whose word keeps it, or removed at this moment
            os.utime(folder)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a kept folder that turns out to be of no use, so that it is made anew."""
        with self._locked(fcntl.LOCK_EX):
            shutil.rmtree(folder, ignore_errors=True)

    def _make(self, folder: Path, make: Callable[[Path], None]) -> None:
        self._tidy()
        if shutil.disk_usage(self._root).free < self._min_free:
            raise OSError(f"the disk has less than MIN_FREE_DISK={self._min_free} bytes free")
        partial = Path(tempfile.mkdtemp(dir=self._root, prefix="."))
        try:
            make(partial)
            digests = {path.name: _digest(path) for path in partial.iterdir()}
            (partial / _DIGESTS).write_text(json.dumps(digests))
            if folder.exists():
                logger.warning("%s is damaged, and is made anew", folder.name)
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what is no longer used, and what makers left that died. Whoever still has it mapped keeps it."""
        for folder in self._root.glob("*/"):
            is_left = folder.name.startswith(".")  # only one process makes anything, and that is this one
            if is_left or folder.stat().st_mtime < time.time() - _UNUSED_S:
                shutil.rmtree(folder)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """The kernel frees the lock of a process that dies."""
        with (self._root / "lock").open("a") as file:
            fcntl.flock(file, how)
            yield


def _key(source: Source, made_by: Mapping[str, object]) -> str:
    if source.folder is None:
        raise FileNotFoundError(source.error)
    described = {path.name: _digest(path) for path in sorted(source.folder.glob("*.json"))}
    parts = [_FORMAT, source.name, source.revision, described, dict(made_by)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _is_sound(folder: Path) -> bool:
    try:
        digests = json.loads((folder / _DIGESTS).read_text())
        return all(_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
