"""What a process is sent of a message."""

import json
import pickle
from typing import Any

import pytest
from celery.app.trace import fast_trace_task
from kombu import Connection

from app.broker import CeleryApp
from app.registry import NewJob
from app.worker.request import JobRequest
from tests.records import new_job


@pytest.fixture
def job() -> NewJob:
    return new_job()


@pytest.fixture
def request_of_job(celery: CeleryApp, job: NewJob) -> JobRequest:

    def body() -> None:
        """Is not called."""

    celery.task(body, name=job.task)
    channel = Connection("memory://").channel()
    message = channel.Message(json.loads(celery.messages.encode(job)), channel=channel)
    return JobRequest(message, app=celery, hostname="one@test", body=message.body, headers=message.headers)


def test_a_process_decodes_nothing_and_has_what_it_needs(
    celery: CeleryApp, job: NewJob, request_of_job: JobRequest
) -> None:
    sent = (
        request_of_job.type,
        request_of_job.id,
        request_of_job.request_dict,
        request_of_job.body,
        request_of_job.content_type,
        request_of_job.content_encoding,
    )
    seen: list[Any] = []

    def trace(*traced: Any) -> tuple[Any, ...]:
        seen.append(traced)
        return None, None, 0.1, "shown"

    celery.tasks[job.task].__trace__ = trace
    localized = (celery.tasks, None, "one@test")
    assert fast_trace_task(*pickle.loads(pickle.dumps(sent)), _loc=localized) == (0, "shown", 0.1)

    ((job_id, arguments, options, known),) = seen
    assert (job_id, arguments, options) == (job.job_id, [job.path], {"options": job.options, "model": None})
    delivered = {"exchange": "", "routing_key": job.task, "priority": job.priority, "redelivered": False}
    assert known.items() >= {"id": job.job_id, "task": job.task, "retries": 0, "hostname": "one@test"}.items()
    assert known["delivery_info"] == delivered
    assert len(pickle.dumps(sent)) < 900, "what nobody reads stays here"
