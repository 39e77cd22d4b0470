"""What stands between Pillow and the rest: no warning gets out, and no exception but ours or the system's."""

import resource
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from pathlib import Path

from PIL import Image, ImageCms

from app.errors import AppError, OutOfMemory

#: What the parsers and codecs of Pillow raise on hostile bytes: nearly anything, and none of it says more than
#: "damaged". Yet not `Exception`, which would also take the interruption of a job for a fault of its image.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

#: `catch_warnings` swaps filters that the whole process shares, so two threads must not do it at once.
_FILTERS = threading.Lock()


class BusyError(Exception):
    """Another thread is with Pillow, and it was not to be waited for."""


@contextmanager
def pillow(*, otherwise: type[AppError], message: str, at_once: bool = False) -> Iterator[None]:
    """Run Pillow on what a stranger sent: whatever goes wrong is raised as `otherwise`, with this message.

    Not so `MemoryError`, which becomes `OutOfMemory`, and an `OSError` of the system, which stays as it is. Raises
    `BusyError` if it is to be `at_once` and cannot be.
    """
    with _taken(_FILTERS, waiting=not at_once), warnings.catch_warnings():
        # Pillow warns of odd metadata and of sizes near its own limit: both are checked before, or do no harm.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        except MemoryError:
            raise OutOfMemory("There was not enough memory for this image. Send a smaller one.") from None
        except DAMAGE as error:
            # Pillow's own OSErrors carry no errno. One that does is the system's, a failing disk for instance; only
            # EINVAL is the file's doing again, which makes Pillow seek to a negative offset.
            if isinstance(error, OSError) and error.errno not in {None, EINVAL}:
                raise
            raise otherwise(message) from error


@contextmanager
def _taken(lock: threading.Lock, *, waiting: bool) -> Iterator[None]:
    if not lock.acquire(blocking=waiting):
        raise BusyError
    try:
        yield
    finally:
        lock.release()


@contextmanager
def bounded_memory(more_bytes: int) -> Iterator[None]:
    """Let this process have no more memory than it has, and so much; a codec that wants more gives up.

    For all threads alike, so only where nothing else helps. Linux tells how much it has (proc(5), statm) and bounds it
    (4.7, setrlimit(2)); elsewhere there is no bound.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    held_bytes = int(statm.read_text().split()[5]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    room = held_bytes + more_bytes
    if soft == resource.RLIM_INFINITY or room < soft:
        resource.setrlimit(resource.RLIMIT_DATA, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
