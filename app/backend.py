"""Celery's result backend, with one script for every state write: the fence.

A run is started by writing the token of the process into its record. From then on the script lets a state through only
from that process, until the run has ended or is published again, so that a redelivered message, a process that was
given up or a late write can never change what a client has been told. The same script keeps the record, the indexes and
the wake-ups in step with the state.

Used by URL: `result_backend = "app.backend:FencedBackend+redis://localhost:6379/0"`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from celery.backends.redis import RedisBackend
from kombu.utils.functional import retry_over_time
from pydantic_core import PydanticSerializationError, to_json
from redis.exceptions import ResponseError

from app import scripts
from app.errors import AppError
from app.refusals import refuses_writes
from app.registry import known, lives_ms
from app.scripts.direct import ShortWay
from app.states import TERMINAL, State

logger = logging.getLogger(__name__)


class Write(StrEnum):
    """What became of a state write."""

    #: The state is stored and announced.
    STORED = "stored"
    #: Another process holds the run.
    HELD = "held"
    #: The job has ended; what it ended with stands.
    ENDED = "ended"
    #: The record has expired or was erased, and nobody else wants the run.
    GONE = "gone"
    #: It is started later: it has crashed before, and so has another that runs.
    LATER = "later"
    #: It was to be cancelled, and now is.
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """Whether a worker is to go on with a run that it holds."""

    #: It is.
    MINE = "mine"
    #: Another process has been given it.
    HELD = "held"
    #: It is to be cancelled.
    CANCELLED = "cancelled"
    #: It has ended.
    ENDED = "ended"
    #: Nobody wants it any more.
    GONE = "gone"


class Start(NamedTuple):
    """A start of a run, as its process is told. Times are milliseconds since the epoch, by the clock of Redis."""

    #: Where the picture is to be fetched; None when it came along.
    url: str | None
    submitted_at: int
    started_at: int
    #: Since when it waited on its lane; None where that is not known.
    waiting_since: int | None
    #: Starts so far, this one among them.
    attempts: int
    #: Starts so far that ended in a passing failure.
    retries: int


def _start(said: Sequence[Any]) -> Start:
    url, submitted_at, started_at, waiting_since, attempts, retries = said
    return Start(url.decode() or None, submitted_at, started_at, known(waiting_since), attempts, retries)


@dataclass(frozen=True)
class Held:
    """A run that a worker holds."""

    run_id: str
    #: Names the process that runs it; None while only its message is there.
    token: str | None

    def for_script(self) -> dict[str, str]:
        """As the script is told."""
        return {"run": self.run_id, **({"token": self.token} if self.token else {})}


def _model_of(result: Any) -> str | None:
    """The model that gave a result, as a submission names the one it expects."""
    model = result.get("model") if isinstance(result, dict) else None
    return model and f"{model['name']}@{model['revision']}"


def _request_meta(request: Any) -> dict[str, Any]:
    """What is kept of the message with a state."""
    if request is None:
        return {}
    delivered = getattr(request, "delivery_info", None) or {}
    return {
        "name": getattr(request, "task", None),
        "args": getattr(request, "args", None),
        "kwargs": getattr(request, "kwargs", None),
        "worker": getattr(request, "hostname", None),
        "retries": getattr(request, "retries", None),
        "queue": delivered.get("routing_key"),
    }


class FencedBackend(RedisBackend):  # type: ignore[misc]  # Celery carries no types
    """Redis as the result backend, behind the fence."""

    @cached_property
    def _direct(self) -> ShortWay:
        """For the two writes of every job."""
        return ShortWay(self.client)

    @cached_property
    def _rules(self) -> dict[str, Any]:
        """What the script is told each time."""
        settings = self.app.settings
        return {"max_crashes": settings.task_max_deliveries, "lives": lives_ms(settings)}

    def start(self, job_id: str, result: Any, *, request: Any) -> tuple[Write, Start | None]:
        """Make the run this process's and store STARTED, waiting for Redis if need be. The start, if that was stored.

        It waits rather than giving the message back: a start whose answer was lost holds the run, and only this
        process may go on with it.
        """
        outcome, said = retry_over_time(
            self._run,
            (*self.connection_errors, ResponseError),
            (job_id, result, State.STARTED, request),
            errback=self._before_another_start,
            interval_start=0.1,
            interval_step=0.2,
            interval_max=2,
        )
        return outcome, _start(said) if said else None

    def write(self, job_id: str, result: Any, state: State, *, request: Any) -> Write:
        """Store one state of a job, once, if the fence lets it through.

        `result` is what goes with the state, encoded already; `request` is Celery's context of the job, whose
        `run_token` names the process that runs it. Raises `redis.RedisError` when Redis is away.
        """
        return self._run(job_id, result, state, request)[0]

    def tell(self, job_id: str, result: Any, state: State, *, request: Any) -> Write:
        """As `write`, for who stands beside the work and cannot leave it off: a cancelled run is not ended by it."""
        return self._run(job_id, result, state, request, told=True)[0]

    def _run(  # noqa: PLR0913  # what one state write is made of
        self,
        job_id: str,
        result: Any,
        state: State,
        request: Any,
        traceback: Any = None,
        retry_at_ms: int | None = None,
        *,
        told: bool | None = None,
    ) -> tuple[Write, Sequence[Any]]:
        """What became of the write, and what is told of a start."""
        # The first and the last of every job go the short way.
        call = self._direct.call if state is State.STARTED or state in TERMINAL else self._call
        outcome, *start = call(
            "write",
            self._encoded(job_id, result, state, request, traceback),
            run=job_id,
            state=str(state),
            token=getattr(request, "run_token", None) or "",
            retry_at=retry_at_ms,
            told=told,
            answered=_model_of(result) if state is State.SUCCESS else None,
            **self._rules,
        )
        return Write(outcome.decode()), start[0] if start else ()

    def _call(self, name: str, *texts: str, **given: Any) -> Any:
        return scripts.call(self.client, name, *texts, **given)

    def failure(self, job_id: str, error: AppError) -> str:
        """A failure as it is stored, for a script that ends a run by itself."""
        return self._encoded(job_id, self.prepare_exception(error), State.FAILURE)

    def _encoded(self, job_id: str, result: Any, state: State, request: Any = None, traceback: Any = None) -> str:
        """What is kept of a state, field by field as Celery's own backends have it."""
        meta = {
            "status": str(state),  # an enum's value is asked for in Python
            "result": result,
            "traceback": traceback,
            "children": [],
            "date_done": datetime.now(UTC).isoformat() if state in TERMINAL else None,
            **_request_meta(request),
            "task_id": job_id,
        }
        # What is said may be no text of Unicode's; Celery's encoding takes that, and is slower.
        if state not in self.EXCEPTION_STATES:
            try:
                return to_json(meta).decode()
            except PydanticSerializationError as error:
                logger.debug("job %s: %s", job_id, error)
        return str(self.encode(meta))

    def renew(self, held: Sequence[Held]) -> list[Verdict]:
        """Renew the leases of what a worker holds. Returns, for each, whether it should go on with it."""
        said = self._call("renew", held=[one.for_script() for one in held])
        return [Verdict(verdict.decode()) for verdict in said]

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Celery asks this of a failed write: a Redis that refuses to write will take it later, as one away will."""
        return bool(super().exception_safe_to_retry(exc)) or refuses_writes(exc)

    def _before_another_start(self, exc: Exception, intervals: Iterator[float], _retries: int) -> float:
        if not self.exception_safe_to_retry(exc):
            raise exc
        logger.warning("a start waits for Redis: %s", exc)
        return next(intervals)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing: Celery's own would leak one subscription for each job."""

    def _store_result(  # noqa: PLR0913  # Celery's signature
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        *,
        retry_at_ms: int | None = None,
    ) -> Any:
        written = State(state)
        outcome, _ = self._run(task_id, result, written, request, traceback, retry_at_ms)
        if outcome is not Write.STORED:
            logger.info("job %s: %s was not stored, the job is %s", task_id, state, outcome)
        if when_written := getattr(request, "when_written", None):
            when_written(written, outcome)
        return result
