"""How a running job tells where it is: states, percent, and how long each part took."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError

from app.backend import FencedBackend, Write
from app.registry import JobRecord
from app.states import State, progress_in

logger = logging.getLogger(__name__)

#: Reports within a state are written at most this often.
_REPORT_EVERY_S = 0.2
#: So long after the last write, one is made that says nothing new: its answer tells whether the job is still ours.
_ASK_EVERY_S = 1.0


class Fenced(Exception):
    """The job is no longer ours: it ended, it was erased, or another process runs it."""

    def __init__(self, job_id: str, outcome: Write) -> None:
        super().__init__(f"job {job_id} is {outcome}")
        self.outcome = outcome


class Progress:
    """One attempt at a job, as seen from outside."""

    def __init__(self, backend: FencedBackend, request: Any) -> None:
        self.timings: dict[str, float] = {}
        self._backend = backend
        self._request = request
        self._state = State.STARTED
        self._shown = 0
        self._written_s = 0.0

    def start(self) -> JobRecord:
        """Make the run ours and say STARTED, waiting for Redis if need be. Raises `Fenced` if it cannot be had."""
        self._shown, self._written_s = progress_in(State.STARTED), time.monotonic()
        outcome, record = self._backend.start(self._request.id, {"progress": self._shown}, request=self._request)
        if record is None:
            raise Fenced(self._request.id, outcome)
        return record

    def confirm(self) -> bool:
        """Whether the job is this process's, as Redis knows: False if it does not answer. Raises `Fenced`."""
        return self._tell(self._shown)

    def enter(self, state: State) -> None:
        """Begin a stage. Raises `Fenced`."""
        self._state = state
        self._tell(progress_in(state))

    def report(self, fraction: float) -> None:
        """How much of the stage is done, 0 to 1. Never falls, and is not written for every call.

        Raises `Fenced`, also where nothing has moved on: within `_ASK_EVERY_S` of being lost, a job is left off.
        """
        percent = max(self._shown, progress_in(self._state, fraction))
        waited_s = time.monotonic() - self._written_s
        if waited_s >= (_REPORT_EVERY_S if percent > self._shown else _ASK_EVERY_S):
            self._tell(percent)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Note how long the block took, in milliseconds."""
        begin = time.perf_counter()
        yield
        self.timings[name] = round((time.perf_counter() - begin) * 1000, 2)

    def _tell(self, percent: int) -> bool:
        """Whether it is stored; work goes on if not. Raises `Fenced`."""
        self._shown, self._written_s = percent, time.monotonic()
        job_id = self._request.id
        try:
            outcome = self._backend.write(job_id, {"progress": percent}, self._state, request=self._request)
        except RedisError as error:  # the work is worth finishing: its result is held until Redis is back
            logger.warning("job %s: progress was not stored: %s", job_id, error)
            return False
        if outcome is not Write.STORED:
            raise Fenced(job_id, outcome)
        return True
