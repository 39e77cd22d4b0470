"""A message as the worker's main process follows it, from its arrival to its acknowledgement.

The main process acts for a process that can no longer: it publishes again the run of one that died, or that a stopping
worker gives up, and it writes the end of one that overran its time limit.
"""

import logging
import time
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.app.task import Context
from celery.worker import state as worker_state
from celery.worker.request import Request
from redis.exceptions import RedisError

from app import queues
from app.errors import JobGone
from app.queues import Requeued, Why
from app.worker.identity import token_of
from app.worker.killing import forget, was_killed

logger = logging.getLogger(__name__)

#: What a process is told of a message beside the arguments.
_SENT = ("id", "task", "retries", "timelimit", "delivery_info")


class JobRequest(Request):  # type: ignore[misc]  # Celery carries no types
    """A request that knows under which token its job runs."""

    _given_back = False
    #: When a process took it, by this machine's monotonic clock; Celery's own moment goes wrong when the clock is set.
    accepted_s = 0.0

    #: The message is decoded here, as its process need not do again.
    content_type = None

    @property
    def body(self) -> Any:
        """The arguments that its process is sent, and what else Celery has in a message's body."""
        return self._payload

    @property
    def request_dict(self) -> dict[str, Any]:
        """What else its process is sent: what it uses."""
        return {name: value for name in _SENT if (value := self._request_dict.get(name)) is not None}

    @property
    def _context(self) -> Context:
        """What the backend is given with a state write: here, the token of the process written for."""
        context = super()._context
        context.run_token = self._token()
        return context

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Called when a process has taken it. Whoever sees it among the active requests sees when that was."""
        self.accepted_s = time_accepted
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:  # noqa: FBT001, FBT002  # Celery's signature
        """Publish the run of a process that died again, or give it up if it has done so too often."""
        cause = exc_info.exception
        if isinstance(cause, ExceptionWithTraceback):
            cause = cause.exc
        if self._given_back:
            worker_state.task_ready(self)
        elif isinstance(cause, WorkerLostError) and self._requeue(self._why_it_died()):
            forget(self.worker_pid)
            logger.warning("job %s: its process died: %s", self.id, cause)
            worker_state.task_ready(self)
            self.acknowledge()
            self.send_event("task-failed", exception=repr(cause), traceback=exc_info.traceback)
        else:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    @property
    def sent_to(self) -> int | None:
        """The process that it is on its way to, or has arrived at without our having heard of that."""
        sent = self._apply_result and self._apply_result()
        process = None if sent is None or self.time_start else sent._write_to  # noqa: SLF001  # the pool tells nobody
        return process.pid if process else None

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:  # noqa: FBT001, FBT002  # Celery's signature
        """Publish the run of a job that a stopping worker gives up again, and end its process."""
        if process_id := self.sent_to:  # as if it had been taken: it may have been
            self.worker_pid, self.time_start = process_id, time.time()
        self._given_back = self._requeue(Why.GIVEN_BACK)
        if self._given_back:
            self.acknowledge()
        # The worker waits for its processes, and one in code that asks for nothing would let it wait for ever.
        super().cancel(pool, signal=signal or "KILL", emit_retry=emit_retry)

    def _why_it_died(self) -> Why:
        ours = worker_state.should_stop is not None or worker_state.should_terminate is not None
        return Why.GIVEN_BACK if ours or was_killed(self.worker_pid) else Why.CRASHED

    def _requeue(self, why: Why) -> bool:
        """Whether the message has done its duty. If not, it goes back, and the run is found to be lost later."""
        try:
            outcome = queues.requeue(self.app.redis, self.id, why, app=self.app, token=self._token())
        except (RedisError, JobGone, KeyError, ValueError) as error:
            logger.warning("job %s could not be published again: %r", self.id, error)
            return isinstance(error, JobGone)
        log = logger.error if outcome is Requeued.CONDEMNED else logger.info
        log("job %s, %s: it is %s", self.id, why, outcome)
        return True

    def _token(self) -> str:
        return token_of(self.worker_pid) if self.worker_pid else ""
