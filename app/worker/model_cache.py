"""What is made once of a model's weights and kept: `{STORAGE_ROOT}/model-cache/{key}/`, which every process maps.

ask for it → it is there and sound: that → else one process makes it, those who ask for the same wait, and all have it.

A folder is made beside its place and renamed, so that it is there whole or not at all. What has changed since, as after
a power failure, does not match its list of digests and is made anew: a process that reads past the end of a mapped file
is killed. So is one that maps what another machine removes: who has a folder says so, by a lock on a file in it that
lasts as long as its process.
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
_IN_USE = "in-use"
#: Changed when what this code makes of the same weights changes.
_FORMAT = 4
#: What no process has asked for in so long belongs to weights or versions that are no longer in use.
_UNUSED_S = 30 * 86_400

#: What keeps the folders that this process has from being removed, by folder: it may have them mapped until it ends.
_held: dict[Path, int] = {}


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
        with self._locked(folder.name, fcntl.LOCK_SH):
            if _is_sound(folder):
                return _hold(folder)
        with self._locked(folder.name, fcntl.LOCK_EX):
            if not _is_sound(folder):  # nobody else has made it since
                self._make(folder, make)
            return _hold(folder)

    def discard(self, folder: Path) -> None:
        """Remove a kept folder that turns out to be of no use, so that it is made anew."""
        with self._locked(folder.name, fcntl.LOCK_EX):
            shutil.rmtree(folder, ignore_errors=True)

    def _make(self, folder: Path, make: Callable[[Path], None]) -> None:
        self._tidy(folder.name)
        if shutil.disk_usage(self._root).free < self._min_free:
            raise OSError(f"the disk has less than MIN_FREE_DISK={self._min_free} bytes free")
        partial = Path(tempfile.mkdtemp(dir=self._root, prefix=f".{folder.name}."))
        try:
            make(partial)
            (partial / _IN_USE).touch()
            digests = {path.name: _digest(path) for path in partial.iterdir()}
            (partial / _DIGESTS).write_text(json.dumps(digests))
            if folder.exists():
                logger.warning("%s is damaged, and is made anew", folder.name)
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _tidy(self, making: str) -> None:
        """Remove what is no longer used, and what makers left that died; `making` is what this process has locked."""
        for folder in self._root.glob("*/"):
            name = folder.name.removeprefix(".").partition(".")[0]
            alone = contextlib.nullcontext() if name == making else self._locked(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError), alone:  # somebody is at it, or another user's
                if _is_unused(folder):
                    shutil.rmtree(folder)

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        """What is done to one model's folder. The kernel frees the lock of a process that dies; its file stays."""
        with (self._root / f"{name}.lock").open("a") as file:
            fcntl.flock(file, how)
            yield


def _hold(folder: Path) -> Path:
    with contextlib.suppress(OSError):  # another user's, whose word keeps it
        os.utime(folder)
    file = os.open(folder / _IN_USE, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_SH)
    if folder in _held:  # it may be another's, for it has been made anew since
        os.close(_held[folder])
    _held[folder] = file
    return folder


def _is_unused(folder: Path) -> bool:
    """Asked by who has its lock: so what a maker has not finished was left."""
    if folder.name.startswith("."):
        return True
    if folder.stat().st_mtime >= time.time() - _UNUSED_S:
        return False
    with (folder / _IN_USE).open("ab") as file:  # over NFS, what is locked for one alone must be open to be written
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises `BlockingIOError` while any process has it
    return True


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
