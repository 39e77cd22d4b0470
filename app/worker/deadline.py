"""The deadline of an attempt, kept by its own process: Celery forgets those of running jobs when its connection breaks.

Celery's soft limit goes the same way: an attempt is ended by whichever comes first, and once.
"""

import signal
from types import TracebackType
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

#: How Celery tells a process that its job is over the soft limit.
_SOFT_LIMIT = signal.SIGUSR1


class _Signals:
    """What both signals do, in a block and outside of one. They are for the main thread, and so for one block."""

    def __init__(self) -> None:
        self._is_awaited = False
        self._are_ours = False
        self._before: Any = None
        self._others = (0.0, 0.0)

    def await_them(self, seconds: float) -> None:
        """From now on the first of them ends the block; the alarm comes in so many seconds."""
        before: Any = self._raise
        if not self._are_ours:
            signal.signal(_SOFT_LIMIT, self._raise)
            before = signal.signal(signal.SIGALRM, self._raise)
            # A worker process has no other use for it, and setting handlers takes long.
            self._are_ours = before is signal.SIG_DFL
        others = signal.setitimer(signal.ITIMER_REAL, seconds)
        # A signal that came as a block began or ended has left that one's alarm behind, which nobody is to have back.
        if not self._are_ours and before != self._raise:
            self._before, self._others = before, others
        self._is_awaited = True

    def ignore_them(self) -> None:
        """Until the next block. The alarm is left to who had it before."""
        self._is_awaited = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not self._are_ours:
            signal.signal(signal.SIGALRM, self._before)
            signal.setitimer(signal.ITIMER_REAL, *self._others)

    def _raise(self, *_: Any) -> None:
        if self._is_awaited:
            self._is_awaited = False
            raise SoftTimeLimitExceeded


_signals = _Signals()


class deadline:  # noqa: N801  # read as a function: with deadline(5): …
    """Raise `SoftTimeLimitExceeded` in the block when the time is up, or Celery says so. For the main thread only.

    After the block Celery's word is ignored until the next one: it would hit the storing of a result, and lose it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        _signals.await_them(self._seconds)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        _signals.ignore_them()
