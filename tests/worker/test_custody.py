"""What a worker holds, as its main process looks after it."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.worker import state as worker_state
from kombu import Connection

from app import keys, queues, scripts
from app.broker import CeleryApp
from app.config import Settings
from app.queues import Why
from app.registry import NewJob, lives_ms
from app.storage import Storage
from app.worker import custody as module
from app.worker.custody import Custody
from app.worker.identity import token_of
from app.worker.killing import MAX_A_MINUTE
from app.worker.request import JobRequest
from tests.backends import request_of
from tests.records import accept, process_of

LONG = 600.0


@dataclass(eq=False)
class Request:
    """As much of Celery's as custody asks for."""

    id: str
    worker_pid: int | None = None
    accepted_s: float = 0.0


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that custody has ended."""
    ended: list[int] = []
    monkeypatch.setattr("app.worker.killing.os.kill", lambda process_id, number: ended.append(process_id))
    monkeypatch.setattr("app.worker.killing._killed", set())
    return ended


@pytest.fixture
def custody(celery: CeleryApp, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Custody]:
    """Custody that has lost its patience."""
    monkeypatch.setattr(module, "_NOTICE_S", 0)
    yield Custody(celery, storage=storage)
    worker_state.reset_state()


def running(celery: CeleryApp, job: NewJob, *, process_id: int = 101, since_s: float = 0) -> Request:
    """A job that a process of ours has started."""
    celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=token_of(process_id)))
    request = Request(id=job.job_id, worker_pid=process_id, accepted_s=time.monotonic() - since_s)
    worker_state.active_requests.add(request)
    worker_state.reserved_requests.add(request)
    return request


def cancel(client: redis.Redis, settings: Settings, job: NewJob, **how: Any) -> str:
    return str(scripts.call(client, "cancel", id=job.job_id, lives=lives_ms(settings), **how))


def state_of(celery: CeleryApp, job: NewJob) -> str:
    return str(celery.AsyncResult(job.job_id).state)


def test_what_is_held_is_kept_alive(
    custody: Custody, celery: CeleryApp, client: redis.Redis, settings: Settings, killed: list[int]
) -> None:
    ours, taken = accept(client, settings), accept(client, settings)
    request = running(celery, ours)
    waiting = Request(id=taken.job_id)
    worker_state.reserved_requests.add(waiting)
    client.zadd(keys.LEASES, {ours.job_id: 1})

    custody.look(in_touch_s=LONG)

    assert custody.is_busy
    assert client.zcount(keys.LEASES, 2, "+inf") == 2
    assert set(client.zrange(keys.LEASES, 0, -1)) == {request.id, waiting.id}
    assert process_of(client, taken.job_id) is None, "what only waits is nobody's yet"
    assert killed == []


def test_a_worker_is_done_when_its_runs_have_ended(
    custody: Custody, celery: CeleryApp, client: redis.Redis, settings: Settings
) -> None:
    job = accept(client, settings)
    request = running(celery, job)
    celery.backend.store_result(job.job_id, {}, "SUCCESS", request=request_of(job.job_id, token=token_of(101)))

    custody.look(in_touch_s=LONG)

    assert not custody.is_busy
    assert request in worker_state.active_requests, "Celery has not heard of it yet"


def test_who_does_not_notice_is_written_off_first_and_killed_then(
    custody: Custody,
    celery: CeleryApp,
    client: redis.Redis,
    settings: Settings,
    storage: Storage,
    killed: list[int],
) -> None:
    job = accept(client, settings)
    storage.store_artifact(job.job_id, "file.bin", lambda file: file.write(b"kept"))
    request = running(celery, job)
    assert cancel(client, settings, job) == "requested"

    custody.look(in_touch_s=LONG)
    custody.look(in_touch_s=LONG)

    assert killed == [request.worker_pid], "once"
    assert state_of(celery, job) == "REVOKED"
    assert not list(storage.root.glob(f"artifacts/*/{job.job_id}/*"))
    queues.requeue(client, job.job_id, Why.GIVEN_BACK, app=celery, token=token_of(101))
    assert client.llen("classify") == 0


def test_who_notices_is_given_the_time_to(
    custody: Custody,
    celery: CeleryApp,
    client: redis.Redis,
    settings: Settings,
    killed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_NOTICE_S", 60)
    job = accept(client, settings)
    request = running(celery, job)
    cancel(client, settings, job)

    custody.look(in_touch_s=LONG)

    assert (killed, state_of(celery, job), custody.is_busy) == ([], "STARTED", True)
    assert request.worker_pid == 101


def test_an_erased_run_frees_its_process(
    custody: Custody, celery: CeleryApp, client: redis.Redis, settings: Settings, killed: list[int]
) -> None:
    job = accept(client, settings)
    request = running(celery, job)
    assert cancel(client, settings, job, erase=True) == "erased"

    custody.look(in_touch_s=LONG)

    assert killed == [request.worker_pid]


def test_beyond_the_kills_of_a_minute_the_cancelled_go_on(
    custody: Custody, celery: CeleryApp, client: redis.Redis, settings: Settings, killed: list[int]
) -> None:
    jobs = [accept(client, settings) for _ in range(MAX_A_MINUTE + 1)]
    requests = [running(celery, job, process_id=200 + number) for number, job in enumerate(jobs)]
    for job in jobs:
        cancel(client, settings, job)

    custody.look(in_touch_s=LONG)

    assert len(killed) == MAX_A_MINUTE
    assert sorted(state_of(celery, job) for job in jobs) == ["REVOKED"] * MAX_A_MINUTE + ["STARTED"]
    assert len(requests) == MAX_A_MINUTE + 1


def test_who_is_late_fails_and_is_killed_unless_it_may_be_waiting_for_redis(
    custody: Custody, celery: CeleryApp, client: redis.Redis, settings: Settings, killed: list[int]
) -> None:
    late, early = accept(client, settings), accept(client, settings)
    requests = [
        running(celery, late, process_id=101, since_s=settings.task_time_limit + 6),
        running(celery, early, process_id=102, since_s=settings.task_time_limit + 4),
    ]

    custody.look(in_touch_s=1)
    assert killed == []
    custody.look(in_touch_s=LONG)
    custody.look(in_touch_s=LONG)

    assert killed == [requests[0].worker_pid]
    assert [state_of(celery, job) for job in (late, early)] == ["FAILURE", "STARTED"]


def test_a_clock_that_is_set_makes_nobody_late(
    custody: Custody,
    celery: CeleryApp,
    client: redis.Redis,
    settings: Settings,
    killed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = accept(client, settings)
    channel = Connection("memory://").channel()
    message = channel.Message(json.loads(celery.messages.encode(job)), channel=channel)
    request = JobRequest(message, app=celery, task=SimpleNamespace(acks_late=True))
    worker_state.task_reserved(request)
    request.on_accepted(101, time.monotonic())
    celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token=token_of(101)))
    by_the_clock = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: by_the_clock)

    custody.look(in_touch_s=LONG)

    assert killed == []
    assert state_of(celery, job) == "STARTED"


def test_who_has_lost_its_run_is_killed_when_it_is_late_and_harms_nothing(
    custody: Custody,
    celery: CeleryApp,
    client: redis.Redis,
    settings: Settings,
    storage: Storage,
    killed: list[int],
) -> None:
    job = accept(client, settings)
    request = running(celery, job, since_s=settings.task_time_limit + 6)
    client.zadd(keys.LEASES, {job.job_id: 1})
    queues.requeue(client, job.job_id, Why.LOST, app=celery)
    celery.backend.start(job.job_id, {"progress": 5}, request=request_of(job.job_id, token="another's"))
    storage.store_artifact(job.job_id, "file.bin", lambda file: file.write(b"the other's"))

    custody.look(in_touch_s=LONG)

    assert killed == [request.worker_pid]
    assert state_of(celery, job) == "STARTED"
    assert process_of(client, job.job_id) == "another's"
    assert list(storage.root.glob(f"artifacts/*/{job.job_id}/*"))
