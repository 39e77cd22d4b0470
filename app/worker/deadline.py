"""The deadline of an attempt, kept by its own process: Celery forgets those of running jobs when its connection breaks.

Celery's soft limit goes the same way: an attempt is ended by whichever comes first, and once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

#: How Celery tells a process that its job is over the soft limit.
_SOFT_LIMIT = signal.SIGUSR1


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `SoftTimeLimitExceeded` in the block when the time is up, or Celery says so. For the main thread only.

    After the block Celery's word is ignored until the next one: it would hit the storing of a result, and lose it.
    """

    def time_is_up(*_: Any) -> None:
        signal.signal(_SOFT_LIMIT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, time_is_up)
    signal.signal(_SOFT_LIMIT, time_is_up)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(_SOFT_LIMIT, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)
