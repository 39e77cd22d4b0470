"""What a worker process does for a job around the task's body.

As Celery's own tracer has it, without what no job of ours asks for, and what is found cold behind a network: callbacks,
chains, signals before and after. What fails is told in Celery's own way.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Task as CeleryTask
from celery.app.task import Context
from celery.app.trace import LOG_SUCCESS, TraceInfo, traceback_clear
from celery.exceptions import Ignore, Reject
from celery.states import FAILURE, IGNORED, SUCCESS

from app import quick_json
from app.errors import OutOfMemory

logger = logging.getLogger(__name__)

#: So much of a result is shown in the log and on the dashboard.
_SHOWN = 64

#: Takes a job's id, the arguments of its task, and what is known of its message.
Trace = Callable[[str, Any, dict[str, Any], dict[str, Any]], tuple[Any, ...]]


def tracer(task: CeleryTask) -> Trace:
    """What Celery calls for each job of a task, in place of what it would build."""

    def trace(job_id: str, args: Any, kwargs: dict[str, Any], request: dict[str, Any]) -> tuple[Any, ...]:
        began_s = time.monotonic()
        # Without headers, it would look for those of others among all that it is given.
        context = Context(request, args=args, kwargs=kwargs, called_directly=False, headers={})
        task.request_stack.push(context)
        try:
            result, shown = _done(task, context, job_id, args, kwargs)
        except Exception as error:  # noqa: BLE001  # the outermost: whatever it is, it is how the job ends
            return _failed(task, context, error)
        finally:
            task.request_stack.pop()
        took_s = time.monotonic() - began_s
        logger.info(LOG_SUCCESS, {"name": task.name, "id": job_id, "runtime": took_s, "return_value": shown})
        return result, None, took_s, shown

    return trace


def _done(task: CeleryTask, context: Context, job_id: str, args: Any, kwargs: dict[str, Any]) -> tuple[Any, str]:
    try:
        result = task.run(*args, **kwargs)
        task.backend.store_result(job_id, result, SUCCESS, request=context)
        return result, _shown(result)
    except MemoryError:  # Celery would raise it again in the main process, before the message is acknowledged
        raise OutOfMemory(OutOfMemory.SENTENCE) from None


def _failed(task: CeleryTask, context: Context, error: Exception) -> tuple[Any, ...]:
    if isinstance(error, Ignore | Reject):
        told, info = TraceInfo(IGNORED, error), ExceptionInfo(internal=True)
        told.handle_ignore(task, context)
    else:
        told = TraceInfo(FAILURE, error)
        info = told.handle_error_state(task, context)
    # Its frames hold what the body worked on.
    traceback_clear(error)
    return info, told, None, None


def _shown(result: Any) -> str:
    text = quick_json.dumps(result)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
