"""Folders in which files come and go all the time, and how ext4 is told of them.

ext4 gives a file an inode near that of its folder, and a folder one near its parent's. Those that were freed within the
last minutes it passes over, and looks at one after the other: where uploads have come and gone in their thousands, a
new one waits half a millisecond for that. So folders are spread, and each has only its own to pass over. What is
written elsewhere first, as long uploads are, has nothing of it: a file keeps its inode where it is moved.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

#: Sources: ioctl_iflags(2), for the calls; chattr(1), attribute `T`, for what ext4 does with the flag.
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_TOP_OF_HIERARCHIES = 0x00020000
_FLAGS = struct.Struct("i")


def spread(folder: Path) -> None:
    """Have each folder that is made in this one from now on lie where there is room, and not beside the others.

    Nothing happens where the file system knows no such thing, or the folder is not ours.
    """
    with contextlib.suppress(OSError), _open(folder) as descriptor:
        (flags,) = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_FLAGS.size)))
        if not flags & _TOP_OF_HIERARCHIES:
            fcntl.ioctl(descriptor, _SET_FLAGS, _FLAGS.pack(flags | _TOP_OF_HIERARCHIES))


@contextlib.contextmanager
def _open(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
