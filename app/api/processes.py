"""Several processes of the API on one port.

The socket is opened once, by the parent; its children take connections from it, whichever is free. The parent replaces
a child that dies, whose waiting connections the others take, and passes the wish to stop on to all. A child whose
parent has died stops as if it had been told to, so that the next parent finds the port free.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time

from uvicorn.config import STARTUP_FAILURE

logger = logging.getLogger(__name__)

#: One that dies sooner is replaced only after this: it may be that none can live.
_LIVES_AT_LEAST_S = 1
_STOPS = (signal.SIGTERM, signal.SIGINT)
_AWAITED = (*_STOPS, signal.SIGCHLD)


def multiply(count: int, listening: socket.socket) -> None:
    """Become the parent of `count` processes, and return in each of these. The parent ends here, after them.

    Called before there are threads or an event loop, neither of which a fork carries over.
    """
    # The parent alone keeps the writing end, so that its death can be read.
    life, parents_end = os.pipe()
    signal.signal(signal.SIGCHLD, lambda *_: None)  # one that is ignored would not be awaited everywhere
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    if not _is_child(count, listening):
        sys.exit(STARTUP_FAILURE)
    os.close(parents_end)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    threading.Thread(target=_stop_with_parent, args=(life,), daemon=True).start()


def _is_child(count: int, listening: socket.socket) -> bool:
    """True in every child; in the parent False, once they have all ended because none could start."""
    started_s: dict[int, float] = {}
    stopped_by: int | None = None
    failed = has_lived = False
    while True:
        if stopped_by is None and _fork(started_s, count):
            return True
        awaited = _next_signal(may_try_again=len(started_s) < count and stopped_by is None)
        for pid, code in _ended():
            if pid not in started_s:  # an orphan that the system gave us
                continue
            lived_s = time.monotonic() - started_s.pop(pid)
            has_lived = has_lived or lived_s >= _LIVES_AT_LEAST_S
            failed = failed or (code == STARTUP_FAILURE and not has_lived)
            if stopped_by is None and not failed:
                logger.warning("process %s ended with %s and is replaced", pid, code)
                time.sleep(max(0, _LIVES_AT_LEAST_S - lived_s))
        if awaited in _STOPS or (failed and stopped_by is None):
            stopped_by = awaited or signal.SIGCHLD
            listening.close()  # or it would go on listening when nobody answers any more
            for pid in started_s:
                os.kill(pid, signal.SIGTERM)
        if stopped_by is not None and not started_s:
            _end_as_told(stopped_by)
            return False


def _fork(started_s: dict[int, float], count: int) -> bool:
    """Have `count` children, or fewer where the system has no room for more. True in the children."""
    while len(started_s) < count:
        try:
            pid = os.fork()
        except OSError as error:  # the others go on
            logger.warning("there cannot be another process now: %s", error)
            break
        if pid == 0:
            return True
        started_s[pid] = time.monotonic()
    return False


def _next_signal(*, may_try_again: bool) -> int | None:
    """What is awaited, or None if a fork that failed is to be tried again."""
    if not may_try_again:
        return signal.sigwait(_AWAITED)
    received = signal.sigtimedwait(_AWAITED, _LIVES_AT_LEAST_S)
    return received and received.si_signo


def _ended() -> list[tuple[int, int]]:
    """Children that have ended, and their exit codes, negative for a signal."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # there is none left
            return ended
        if not pid:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def _end_as_told(number: int) -> None:
    """End by the signal to stop, as a process does that is alone."""
    if number in _STOPS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        signal.raise_signal(number)


def _stop_with_parent(life: int) -> None:
    os.read(life, 1)  # nothing is ever written
    os.kill(os.getpid(), signal.SIGTERM)
