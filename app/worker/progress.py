"""How a running job tells where it is: states, percent, and how long each part took.

The job's thread says where it is, which costs nothing. The teller's thread writes what somebody can see of it: a stage
that lasts, and how far it is; and once a second it writes in any case, since the answer says whether the job is still
this process's. If not, the job's thread learns of it with its next word.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from app.backend import FencedBackend, Start, Write
from app.states import State, progress_in
from app.worker.teller import Teller

logger = logging.getLogger(__name__)

#: A stage is written when it has lasted so long; a quick job costs the writes of its start and its end.
_SEEN_AFTER_S = 0.1
#: Reports within a stage are written at most this often.
_REPORT_EVERY_S = 0.2
#: So long after the last write, one is made that says nothing new.
_ASK_EVERY_S = 1.0

_teller = Teller()


class Fenced(Exception):
    """The job is no longer ours: it ended, it was erased, or another process runs it."""

    def __init__(self, job_id: str, outcome: Write) -> None:
        super().__init__(f"job {job_id} is {outcome}")
        self.outcome = outcome


class _Place(NamedTuple):
    """Where a job is."""

    state: State
    percent: int
    #: When the stage began, by this machine's monotonic clock.
    since_s: float


class Progress:
    """One attempt at a job, as seen from outside."""

    def __init__(self, backend: FencedBackend, request: Any) -> None:
        self.timings: dict[str, float] = {}
        self._backend = backend
        self._request = request
        #: Replaced by the job's thread, and read by the teller's.
        self._here = self._told = _Place(State.STARTED, progress_in(State.STARTED), time.monotonic())
        self._told_s = self._noted_s = self._here.since_s
        #: What the last write was answered.
        self._outcome = Write.STORED
        #: Whether the job's own thread knows that the job is not its own any more.
        self._is_lost = False
        #: Held for each write, so that the one before has been answered.
        self._writing = threading.Lock()
        self._is_over = False

    def start(self) -> Start:
        """Make the run ours and say STARTED, waiting for Redis if need be. Raises `Fenced` if it cannot be had."""
        value = {"progress": self._here.percent}
        outcome, start = self._backend.start(self._request.id, value, request=self._request)
        self._told_s = time.monotonic()
        if start is None:
            raise Fenced(self._request.id, outcome)
        return start

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have the block told of. At its end no write is on its way; `Fenced`, if one found the job to be lost."""
        _teller.begin(self)
        try:
            yield
        finally:
            _teller.end()
            with self._writing:
                self._is_over = True
            self._check()

    def enter(self, state: State, *, after: str | None = None) -> None:
        """Begin a stage, and note under `after` how long the one before took. Raises `Fenced`."""
        now_s = time.monotonic()
        if after:
            self._note(after, now_s)
        self._noted_s = now_s
        self._here = _Place(state, progress_in(state), now_s)
        self._check()

    def report(self, fraction: float) -> None:
        """How much of the stage is done, 0 to 1. Never falls. Raises `Fenced`."""
        percent = progress_in(self._here.state, fraction)
        if percent > self._here.percent:
            self._here = self._here._replace(percent=percent)
        self._check()

    def look(self) -> None:
        """Tell what is to be seen by now, if anything is. Called by the teller."""
        try:
            with self._writing:
                if not self._is_over and self._is_due():
                    self._write(self._backend.tell)
        except Exception:  # the teller has others to tell of, and the work goes on
            logger.exception("job %s: progress was not stored", self._request.id)

    def confirm(self) -> bool:
        """Whether the job is this process's, as Redis knows: False if it does not answer. Raises `Fenced`."""
        with self._writing:
            has_answered = not self._is_lost and self._write(self._backend.write)
        if self._outcome is not Write.STORED:
            self._is_lost = True
            raise Fenced(self._request.id, self._outcome)
        return has_answered

    def note(self, name: str) -> None:
        """Note how long it took since the stage began or the last note was made, in milliseconds."""
        self._note(name, time.monotonic())

    def _note(self, name: str, now_s: float) -> None:
        self.timings[name] = round((now_s - self._noted_s) * 1000, 2)
        self._noted_s = now_s

    def _check(self) -> None:
        if self._outcome is not Write.STORED:
            self.confirm()  # ends it, if it was cancelled: the teller leaves that to us, who leave off now

    def _is_due(self) -> bool:
        here, now_s = self._here, time.monotonic()
        if here.state is State.STARTED:  # to say it again would be another start
            return False
        if here.state is not self._told.state and now_s - here.since_s >= _SEEN_AFTER_S:
            return True
        has_moved = here.state is self._told.state and here.percent > self._told.percent
        return now_s - self._told_s >= (_REPORT_EVERY_S if has_moved else _ASK_EVERY_S)

    def _write(self, write: Callable[..., Write]) -> bool:
        """Whether it is stored; work goes on if not."""
        here = self._told = self._here
        self._told_s = time.monotonic()
        job_id = self._request.id
        try:
            self._outcome = write(job_id, {"progress": here.percent}, here.state, request=self._request)
        except RedisError as error:  # the work is worth finishing: its result is held until Redis is back
            logger.warning("job %s: progress was not stored: %s", job_id, error)
            return False
        return True
