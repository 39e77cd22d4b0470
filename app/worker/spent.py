"""Uploads of completed jobs, which nobody will ask for again: removed soon, for a disk would fill with them in an hour.

And what is written next finds memory that was just in use, where the system may have to get new memory from a host.
"""

from collections import deque
from functools import partial
from time import monotonic

from app.storage import Storage, removed

#: A Redis that is killed forgets its last two seconds at most (`appendfsync everysec`), and then has such a job
#: run again, for which its upload must be there.
_KEPT_S = 3.0
#: At once, so that no job waits long for what others have left.
_AT_ONCE = 4


class Spent:
    """Those of one process, which removes them as it goes on; what is left at its end leaves with the results."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        #: Paths relative to the root, each with the moment from which it may be removed.
        self._uploads: deque[tuple[float, str]] = deque()

    def add(self, path: str) -> None:
        """Note one whose job has just been completed, and remove those whose time has come."""
        now_s = monotonic()
        self._uploads.append((now_s + _KEPT_S, path))
        for _ in range(_AT_ONCE):
            if self._uploads[0][0] > now_s:
                break
            _, path = self._uploads.popleft()
            removed(partial(self._storage.remove_spent, path))
