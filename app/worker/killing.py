"""Ending worker processes that do not end by themselves, from the main process, and knowing them afterwards.

A death that we cause is no crash of the job that it hits.
"""

import contextlib
import os
import signal
import time
from collections import deque

#: Each kill costs a load of all models; cancelling must not keep a worker from working.
MAX_A_MINUTE = 10

_killed: set[int | None] = set()


class Killer:
    """Kills processes, so many a minute."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_A_MINUTE)

    @property
    def may(self) -> bool:
        """Whether there is another kill left in this minute."""
        return len(self._times) < MAX_A_MINUTE or time.monotonic() - self._times[0] > 60

    def kill(self, process_id: int) -> None:
        """End a process of ours at once."""
        self._times.append(time.monotonic())
        _killed.add(process_id)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(process_id, signal.SIGKILL)


def was_killed(process_id: int | None) -> bool:
    """Whether we ended this process ourselves."""
    return process_id in _killed


def forget(process_id: int | None) -> None:
    """It has been buried: another may get its number."""
    _killed.discard(process_id)
