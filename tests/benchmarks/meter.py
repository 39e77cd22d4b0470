"""What the model function takes of the processors within the service: added up by each worker process, in a file."""

import functools
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

#: The environment variable that names the folder of those files.
FOLDER = "METER_FOLDER"
_SECONDS = struct.Struct("d")

P = ParamSpec("P")
T = TypeVar("T")


class Meter:
    """What the stages of one process have taken so far, all its threads together."""

    def __init__(self, folder: Path) -> None:
        with (folder / str(os.getpid())).open("w+b") as file:
            file.write(_SECONDS.pack(0))
            file.flush()
            # Calls of the system would count as the service's.
            self._shown = mmap.mmap(file.fileno(), _SECONDS.size)
        self._s = 0.0

    def add(self, seconds: float) -> None:
        """Some more."""
        self._s += seconds
        _SECONDS.pack_into(self._shown, 0, self._s)


def read(folder: Path) -> float:
    """Seconds of processor time that the model function has taken in all processes."""
    return float(sum(_SECONDS.unpack(file.read_bytes())[0] for file in folder.iterdir()))


def metered(stage: Callable[P, T]) -> Callable[P, T]:
    """The same, and what it takes is added up."""

    @functools.wraps(stage)
    def work(*arguments: P.args, **options: P.kwargs) -> T:
        began_s = time.process_time()
        try:
            return stage(*arguments, **options)
        finally:
            _of_this_process(os.getpid()).add(time.process_time() - began_s)

    return work


@functools.cache
def _of_this_process(process_id: int) -> Meter:
    return Meter(Path(os.environ[FOLDER]))
