"""A deadline of a process's own: Celery forgets the time limits of running jobs when its connection breaks."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `SoftTimeLimitExceeded` in the block when the time is up. For the main thread only."""

    def time_is_up(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, time_is_up)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, before)
