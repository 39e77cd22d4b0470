"""The teller: a thread of a worker process that has Redis told how the job goes which the process works on.

It looks ten times a second while there is a job, and sleeps while there is none. The job's own thread never waits for
it, nor for what it writes, until its work is done.
"""

import threading
import time
from typing import Protocol

_LOOK_EVERY_S = 0.1


class Telling(Protocol):
    """What the teller looks at."""

    def look(self) -> None:
        """Write what is to be seen by now. Raises nothing."""


class Teller:
    """Tells of one job at a time. Its thread begins with the first one, after the fork, which it would not survive."""

    def __init__(self) -> None:
        self._job: Telling | None = None
        self._working = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, job: Telling) -> None:
        """Look at a job from now on."""
        self._job = job
        if not self._working.is_set():
            self._working.set()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Look at it no more; a look that has begun may go on."""
        self._job = None

    def _run(self) -> None:
        while True:
            self._working.wait()
            time.sleep(_LOOK_EVERY_S)
            if job := self._job:
                job.look()
            else:
                self._working.clear()
                if self._job:  # it came before that, and saw no need to wake us
                    self._working.set()
