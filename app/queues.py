"""How jobs get onto their queues, and back onto them when what held them is gone.

A queue has a lane for each priority, and numbers the messages of each: so a run whose message got lost is one that the
lane has passed, and nobody has to look through a queue to find it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import redis
import redis.asyncio as aioredis

from app import keys, registry, scripts, tasks
from app.batch import Batch
from app.broker import CeleryApp, Messages
from app.config import Settings
from app.errors import NotFailed, QueueFull, WorkerCrashed
from app.idempotency import Claim, Claimed
from app.priority import Priority
from app.registry import JobRecord, NewJob, Reading, lives_ms, reading
from app.states import Status


@dataclass(frozen=True)
class Sharing:
    """By what a job may have the answer of another."""

    #: Stands for the picture, the task, its options and the model.
    digest: str
    #: The model that is expected to answer, as `name@revision`; another's answer is for nobody else.
    model_is: str


@dataclass(frozen=True)
class Submission:
    """Jobs of one task that are accepted together, or not at all."""

    task: str
    jobs: Sequence[NewJob]
    #: By job id, for those that may share a run.
    sharing: Mapping[str, Sharing] = field(default_factory=dict)
    batch: Batch | None = None
    claim: Claim | None = None


async def enqueue(
    client: aioredis.Redis, submission: Submission, messages: Messages, settings: Settings
) -> list[Reading]:
    """Write records, their indexes and their messages, and the batch they are in, or nothing. Returns them as read.

    Raises `Claimed` if the request has been answered, or is being answered, elsewhere; `QueueFull`; and
    `redis.RedisError` if Redis would not.
    """
    batch, claim = submission.batch, submission.claim
    outcome, *said = await scripts.call(
        client,
        "submit",
        *(messages.encode(job) for job in submission.jobs),
        task=submission.task,
        jobs=[_job(job, submission.sharing.get(job.job_id)) for job in submission.jobs],
        max_depth=settings.max_queue_depth,
        lives=lives_ms(settings),
        batch=batch and {"key": keys.batch(batch.batch_id), "text": batch.to_text(), "ttl": settings.batch_ttl * 1000},
        claim=claim and {**claim.for_script(), "ttl": settings.open_ttl * 1000},
    )
    if outcome == "claimed":
        raise Claimed(said[0])
    if outcome == "full":
        raise queue_full(*said, max_depth=settings.max_queue_depth)
    return [reading(job) for job in said]


def _job(job: NewJob, sharing: Sharing | None) -> dict[str, Any]:
    return {"fields": job.to_fields(), **(vars(sharing) if sharing else {})}


async def redrive(client: aioredis.Redis, record: JobRecord, messages: Messages, settings: Settings) -> Reading:
    """Queue a failed job again, under its id and with the priority it came with. Raises `NotFailed`, `QueueFull`."""
    priority = record.priority if record.asked_priority is None else record.asked_priority
    outcome, *said = await scripts.call(
        client,
        "redrive",
        id=record.job_id,
        message=messages.encode(replace(record, priority=priority)),
        priority=priority,
        max_depth=settings.max_queue_depth,
        lives=lives_ms(settings),
    )
    match outcome:
        case "published":
            return reading(said[0])
        case "full":
            raise queue_full(*said, max_depth=settings.max_queue_depth)
        case "not failed":
            raise NotFailed(NotFailed.SENTENCE)
    return reading([outcome])


def queue_full(depth: int, interval_ms: int, *, max_depth: int) -> QueueFull:
    """What to tell a client when `depth` jobs wait, of which one starts every `interval_ms`; -1 if that is not known.

    It is to come back when a tenth of them are gone: if all came back for the next place, all but one would be in vain.
    """
    seconds = math.ceil(depth / 10 * interval_ms / 1000) if interval_ms >= 0 else QueueFull.UNKNOWN_S
    return QueueFull(
        f"{depth} jobs are waiting, and no more than {max_depth} may. Try again later, or send fewer at once.",
        retry_after_s=min(max(seconds, 1), QueueFull.LONGEST_S),
    )


class Requeued(StrEnum):
    """What became of a run that was to be published again."""

    #: It is on its lane.
    PUBLISHED = "published"
    #: It has crashed too often: its jobs have failed, and are listed as dead.
    CONDEMNED = "condemned"
    #: Its jobs are cancelled, as had been asked for.
    CANCELLED = "cancelled"
    #: It had ended, or nobody wants it any more.
    ENDED = "ended"
    #: There is no record of it.
    GONE = "gone"
    #: It is where it should be.
    KEPT = "kept"


class Why(StrEnum):
    """Why a run is published again."""

    #: Its next attempt after a passing failure is due.
    DUE = "due"
    #: No worker has held it for long.
    LOST = "lost"
    #: The process that ran it died.
    CRASHED = "crashed"
    #: Its worker stops.
    GIVEN_BACK = "given back"


def requeue(client: redis.Redis, run_id: str, why: Why, *, app: CeleryApp, token: str | None = None) -> Requeued:
    """Publish a run again, if it is as `why` says; `token` names the process that held it.

    Raises `JobGone`, and `KeyError` or `ValueError` for a record that cannot be read.
    """
    record = registry.read(client, run_id)
    again = record if why is Why.DUE else replace(record, priority=Priority.HIGH)
    said = scripts.call(
        client,
        "requeue",
        run=run_id,
        why=why,
        message=app.messages.encode(again),
        token=token,
        max_crashes=app.settings.task_max_deliveries,
        failure=app.backend.failure(run_id, WorkerCrashed(WorkerCrashed.SENTENCE)),
        lives=lives_ms(app.settings),
    )
    return Requeued(said)


def find_lost(client: redis.Redis) -> list[str]:
    """Runs that no worker has held for long, some of them at a time."""
    found: list[str] = scripts.call(client, "lost", lanes=_lanes())
    return found


def find_overdue(client: redis.Redis, *, queue_ttl_s: int) -> list[str]:
    """Runs that have waited longer than they may for a start, some of them at a time."""
    found: list[str] = scripts.call(client, "overdue", lanes=_lanes(), longest=queue_ttl_s * 1000)
    return found


def forget(client: redis.Redis, job_ids: Sequence[str]) -> None:
    """Take jobs out of every index whose time is over and whose files have gone."""
    scripts.call(client, "forget", ids=list(job_ids))


def prune(client: redis.Redis) -> None:
    """Take jobs out of the lists whose records vanished before they were forgotten: no worker did the chores then."""
    for task in tasks.TASKS:
        for status in (*Status, keys.DEAD):
            index, cursor = keys.listed(task.name, status), ""
            while cursor is not None:
                cursor = scripts.call(client, "prune", index=index, cursor=cursor or None)


def _lanes() -> list[dict[str, str]]:
    return [{"task": task.name, "priority": f"{priority:d}"} for task in tasks.TASKS for priority in Priority]
