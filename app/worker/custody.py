"""What a worker holds: its leases, kept alive, and its runs, ended where they should end and do not.

A run notices by itself that it was cancelled, erased or is late, unless it sits in code that asks for nothing. Then its
end is written first and its process killed after, so that nothing of it comes back.
"""

import logging
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

from celery.worker import state as worker_state

from app.backend import Held, Verdict, Write
from app.broker import CeleryApp
from app.errors import TimeLimit
from app.states import State
from app.storage import Storage, removed
from app.worker.identity import token_of
from app.worker.killing import Killer, was_killed

logger = logging.getLogger(__name__)

#: A run that has been cancelled or erased is given so long to notice.
_NOTICE_S = 2.0
#: What is said of a run whose process still works for it.
_GOING_ON = (Verdict.MINE, Verdict.CANCELLED)
#: What became of the write that ended a run; others mean that it is another process's, or has its end already.
_ENDED_HERE = (Write.STORED, Write.CANCELLED, Write.GONE)
#: Celery's own hard limit comes first.
_LATE_S = 5
#: A process that has finished delivers its result within this time of the return of Redis.
_DELIVERY_S = 15


class Custody:
    """What this worker's Celery holds of messages and runs."""

    def __init__(self, app: CeleryApp, *, storage: Storage) -> None:
        self._app = app
        self._storage = storage
        self._killer = Killer()
        #: Whether any run was still going on at the last look.
        self.is_busy = False
        #: Since when a run is not to go on, by its id; this machine's monotonic clock.
        self._unwanted: dict[str, float] = {}

    def look(self, *, in_touch_s: float) -> None:
        """Renew all leases, and end what does not end by itself.

        `in_touch_s` is how long Redis has answered without a break. Raises `redis.RedisError`.
        """
        active = [request for request in _copy_of(worker_state.active_requests) if not was_killed(request.worker_pid)]
        running = {request.id: request for request in active if request.worker_pid}
        taken = {request.id for request in _copy_of(worker_state.reserved_requests)} - running.keys()
        held = [Held(run_id, token_of(request.worker_pid)) for run_id, request in running.items()]
        held += [Held(run_id, None) for run_id in taken]
        verdicts = dict(zip((one.run_id for one in held), self._app.backend.renew(held), strict=True)) if held else {}
        self.is_busy = any(verdicts[run_id] in _GOING_ON for run_id in running)
        self._end_unwanted(running, verdicts)
        if in_touch_s > _DELIVERY_S:
            self._end_late(running)

    def _end_unwanted(self, running: dict[str, Any], verdicts: dict[str, Verdict]) -> None:
        unwanted = [run_id for run_id in running if verdicts[run_id] in (Verdict.CANCELLED, Verdict.GONE)]
        now = time.monotonic()
        self._unwanted = {run_id: self._unwanted.get(run_id, now) for run_id in unwanted}
        for run_id, since in self._unwanted.items():
            if now - since >= _NOTICE_S and self._killer.may:
                outcome = self._write(running[run_id], None, State.REVOKED)
                if outcome in _ENDED_HERE:
                    self._kill(running[run_id], outcome, "nobody wants it any more")

    def _end_late(self, running: dict[str, Any]) -> None:
        limit_s = self._app.settings.task_time_limit
        for request in running.values():
            if time.monotonic() - request.accepted_s > limit_s + _LATE_S:
                error = self._app.backend.prepare_exception(TimeLimit(TimeLimit.SENTENCE))
                # Whatever comes of that: it may have lost the run to another process, and would sit here for ever.
                outcome = self._write(request, error, State.FAILURE)
                self._kill(request, outcome, f"it is over its limit of {limit_s} s")

    def _write(self, request: Any, result: Any, state: State) -> Write:
        context = SimpleNamespace(id=request.id, run_token=token_of(request.worker_pid))
        outcome: Write = self._app.backend.write(request.id, result, state, request=context)
        return outcome

    def _kill(self, request: Any, outcome: Write, reason: str) -> None:
        logger.warning("job %s: process %d is killed: %s", request.id, request.worker_pid, reason)
        self._killer.kill(request.worker_pid)
        if outcome in _ENDED_HERE:  # it cannot clean up after itself
            removed(partial(self._storage.discard_attempts, request.id))


def _copy_of(requests: Any) -> list[Any]:
    """A weak set of the main thread's, copied; it may change under our hands, and says so by a `RuntimeError`."""
    while True:
        try:
            return list(requests)
        except RuntimeError:
            continue
