"""Our own enqueueing, held against Celery's."""

import json
from dataclasses import replace
from typing import Any

import pytest
import redis
from kombu.transport.virtual import Base64

from app import keys, queues
from app.api.patience import connect
from app.batch import Batch, BatchEntry
from app.broker import CeleryApp, Messages
from app.config import Settings
from app.errors import QueueFull
from app.priority import Priority
from app.queues import Submission
from app.registry import Found, NewJob
from tests.records import new_job


def body_of(message: dict[str, Any]) -> Any:
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = Base64().decode(body)
    return json.loads(body)


@pytest.mark.parametrize("labels", [["dog"], ["dog"] * 300])
def test_our_message_is_what_celery_would_have_sent(celery: CeleryApp, client: redis.Redis, labels: list[str]) -> None:
    messages = Messages(celery)
    for priority in Priority:
        job = replace(new_job(priority=priority), options={"labels": labels})
        celery.send_task(
            "classify",
            args=(job.path,),
            kwargs={"options": job.options, "model": job.model},
            task_id=job.job_id,
            queue="classify",
            priority=priority,
        )
        lane = keys.lane("classify", priority)

        theirs = json.loads(str(client.lindex(lane, 0)))
        ours = json.loads(messages.encode(job))

        assert body_of(ours) == body_of(theirs)
        assert ours.keys() == theirs.keys()
        assert ours["headers"].keys() <= theirs["headers"].keys()
        assert ours["properties"].keys() == theirs["properties"].keys() - {"body_encoding"}
        volatile = {"origin", "ignore_result"}
        for name in ours["headers"].keys() - volatile:
            assert ours["headers"][name] == theirs["headers"][name], name
        for name in ("content-type", "content-encoding"):
            assert ours[name] == theirs[name]
        for name in ("correlation_id", "delivery_mode", "priority"):
            assert ours["properties"][name] == theirs["properties"][name], name


async def test_a_job_and_its_message_are_written_together(
    settings: Settings, celery: CeleryApp, client: redis.Redis
) -> None:
    redis_client = connect(settings.broker_url)

    async def enqueue(*jobs: NewJob, batch: Batch | None = None) -> list[int | None]:
        submission = Submission(task="classify", jobs=jobs, batch=batch)
        found = await queues.enqueue(redis_client, submission, celery.messages, settings)
        return [one.ahead for one in found if isinstance(one, Found)]

    job, *others = (new_job() for _ in range(3))
    first = await enqueue(job)
    batch = Batch(batch_id="b", task="classify", entries=(BatchEntry(filename=None, job_id=others[0].job_id),))
    together = await enqueue(*others, batch=batch)

    await redis_client.aclose()
    assert [*first, *together] == [0, 1, 2], "they know how many are ahead"
    assert Batch.from_text("b", str(client.get(keys.batch("b")))) == batch
    assert client.ttl(keys.batch("b")) == settings.batch_ttl
    messages = client.lrange(keys.lane("classify", 5), 0, -1)
    ids = [json.loads(str(message))["headers"]["id"] for message in reversed(messages)]
    assert ids == [job.job_id, *(other.job_id for other in others)]
    assert [client.hget(keys.job(job_id), "number") for job_id in ids] == ["1", "2", "3"]
    assert client.zrange(keys.waiting("classify", 5), 0, -1, withscores=True) == [
        (job_id, place) for place, job_id in enumerate(ids, 1)
    ]
    assert client.zcard(keys.listed("classify", "pending")) == client.zcard(keys.EXPIRING) == 3


async def test_a_submission_that_is_refused_leaves_nothing(
    settings: Settings, celery: CeleryApp, client: redis.Redis
) -> None:
    redis_client = connect(settings.broker_url)
    submission = Submission(task="classify", jobs=[new_job(), new_job()])

    with pytest.raises(QueueFull):
        await queues.enqueue(
            redis_client, submission, celery.messages, settings.model_copy(update={"max_queue_depth": 1})
        )

    await redis_client.aclose()
    assert client.keys() == []
