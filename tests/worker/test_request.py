"""A message in the main process: what a process is sent of it, and how it is given up."""

import json
import pickle
from signal import SIGKILL
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.app.trace import fast_trace_task
from celery.worker import state as worker_state
from celery.worker.request import create_request_cls
from kombu import Connection

from app import keys
from app.broker import CeleryApp
from app.config import Settings
from app.registry import NewJob, read
from app.worker.events import PatientConsumer
from app.worker.identity import token_of
from app.worker.request import JobRequest
from tests.backends import finish, request_of
from tests.records import accept, new_job, process_of, read_job


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


def test_what_the_pool_is_handed_is_ours(celery: CeleryApp, job: NewJob, request_of_job: JobRequest) -> None:
    handed: list[Any] = []
    pool: Any = SimpleNamespace(apply_async=lambda _, args, **__: handed.append(args))
    made = create_request_cls(JobRequest, celery.tasks[job.task], pool, "one@test", None, app=celery)
    message = request_of_job.message
    request = made(message, app=celery, hostname="one@test", body=message.body, headers=message.headers)

    request.execute_using_pool(pool)

    ((_, job_id, known, body, content_type, _),) = handed
    assert job_id == job.job_id
    assert (known, body, content_type) == (request_of_job.request_dict, request_of_job.body, None)
    assert set(known) <= {"id", "task", "retries", "timelimit", "delivery_info"}
    assert isinstance(body, list | tuple), "decoded already"


class Pool:
    """A pool whose process 77 has been sent the job, and that remembers what it was to end."""

    def __init__(self, request: JobRequest, *, is_sent: bool = True) -> None:
        self.ended: list[int] = []
        self._result = SimpleNamespace(
            _write_to=SimpleNamespace(pid=77) if is_sent else None, terminate=lambda signal: None
        )
        request._apply_result = lambda: self._result

    def terminate_job(self, process_id: int, signal: int) -> None:
        assert signal == SIGKILL
        self.ended.append(process_id)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_job_on_its_way_to_a_process_is_given_back_whether_it_has_arrived_or_not(
    celery: CeleryApp,
    client: redis.Redis,
    settings: Settings,
    job: NewJob,
    request_of_job: JobRequest,
    has_begun: bool,  # noqa: FBT001
) -> None:
    accept(client, settings, job)
    client.lpop(keys.lane(job.task, job.priority))
    pool = Pool(request_of_job)
    if has_begun:
        celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=token_of(77)))

    assert request_of_job.sent_to == 77
    request_of_job.cancel(pool, emit_retry=False)

    assert pool.ended == [77]
    assert request_of_job.acknowledged
    assert request_of_job.sent_to is None
    assert client.llen(keys.lane(job.task, 0)) == 1
    assert read(client, job.job_id).crashes == 0
    assert process_of(client, job.job_id) is None


def test_a_job_that_has_ended_meanwhile_stays_as_it_is(
    celery: CeleryApp, client: redis.Redis, settings: Settings, job: NewJob, request_of_job: JobRequest
) -> None:
    accept(client, settings, job)
    client.lpop(keys.lane(job.task, job.priority))
    pool = Pool(request_of_job)
    finish(celery.backend, job.job_id)

    request_of_job.cancel(pool, emit_retry=False)

    assert request_of_job.acknowledged
    assert read_job(client, job.job_id).ended
    assert not client.llen(keys.lane(job.task, 0))


def test_only_what_was_sent_to_a_process_is_cancelled_with_what_runs(
    request_of_job: JobRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[JobRequest] = []
    monkeypatch.setattr(JobRequest, "cancel", lambda request, *_, **__: cancelled.append(request))
    monkeypatch.setattr(worker_state, "active_requests", [])
    monkeypatch.setattr(worker_state, "reserved_requests", [request_of_job])
    consumer: Any = PatientConsumer.__new__(PatientConsumer)
    consumer.pool = None

    for is_sent in (False, True):
        Pool(request_of_job, is_sent=is_sent)
        consumer.cancel_active_requests()
        assert cancelled == [request_of_job] * is_sent
    request_of_job.acknowledged = True
    consumer.cancel_active_requests()
    assert len(cancelled) == 1
