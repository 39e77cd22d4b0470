"""A message as the worker's main process follows it, from its arrival to its acknowledgement.

The main process acts for a process that can no longer: it frees the lock of one that died, before the message goes back
to the queue and another process finds it, and it writes the end of one that overran its time limit.
"""

import logging
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.app.task import Context
from celery.worker.request import Request
from redis.exceptions import RedisError

from app.worker.identity import token_of

logger = logging.getLogger(__name__)


class JobRequest(Request):  # type: ignore[misc]  # Celery carries no types
    """A request that knows under which token its job runs."""

    @property
    def _context(self) -> Context:
        """What the backend is given with a state write: here, the token of the process written for."""
        context = super()._context
        context.run_token = self._token()
        return context

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:  # noqa: FBT001, FBT002  # Celery's signature
        """Free the lock of a process that died before its message is put back."""
        cause = exc_info.exception
        if isinstance(cause, ExceptionWithTraceback):
            cause = cause.exc
        if isinstance(cause, WorkerLostError):
            self._release()
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:  # noqa: FBT001, FBT002  # Celery's signature
        """Free the lock of a job that a stopping worker gives up."""
        self._release()
        super().cancel(pool, signal=signal, emit_retry=emit_retry)

    def _release(self) -> None:
        try:
            self.task.backend.release(self.id, token=self._token())
        except RedisError as error:  # it expires by itself, later
            logger.warning("job %s: its lock could not be freed: %s", self.id, error)

    def _token(self) -> str:
        return token_of(self.worker_pid) if self.worker_pid else ""
