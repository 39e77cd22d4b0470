"""Our own enqueueing, held against Celery's."""

import json
from typing import Any

import redis
from kombu.transport.virtual import Base64

from app import keys
from app.api.main import _connect
from app.broker import CeleryApp, Messages, Priority, enqueue
from app.config import Settings
from app.registry import Batch, BatchEntry
from tests.records import record


def body_of(message: dict[str, Any]) -> Any:
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = Base64().decode(body)
    return json.loads(body)


def test_our_message_is_what_celery_would_have_sent(celery: CeleryApp, client: redis.Redis) -> None:
    for priority in Priority:
        job = record(priority=priority)
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
        ours = json.loads(Messages(celery).encode(job))

        assert body_of(ours) == body_of(theirs)
        assert ours["headers"].keys() <= theirs["headers"].keys()
        volatile = {"origin", "ignore_result"}
        for name in ours["headers"].keys() - volatile:
            assert ours["headers"][name] == theirs["headers"][name], name
        for name in ("content-type", "content-encoding"):
            assert ours[name] == theirs[name]
        for name in ("correlation_id", "delivery_mode", "priority"):
            assert ours["properties"][name] == theirs["properties"][name], name


async def test_a_job_and_its_message_are_written_together(settings: Settings, client: redis.Redis) -> None:
    job, redis_client = record(), _connect(settings)

    first = await enqueue(redis_client, [(job, f"message of {job.job_id}")], tombstone_ttl_s=10)
    others = [(other, f"message of {other.job_id}") for other in (record(), record())]
    batch = Batch(batch_id="b", task="classify", entries=(BatchEntry(filename=None, job_id=others[0][0].job_id),))
    together = await enqueue(redis_client, others, tombstone_ttl_s=10, batch=batch, batch_ttl_s=20)

    await redis_client.aclose()
    assert [*first, *together] == [0, 1, 2]
    assert Batch.from_text("b", str(client.get(keys.batch("b")))) == batch
    assert client.ttl(keys.batch("b")) == 20
    assert client.lrange(keys.lane("classify", 5), -1, -1) == [f"message of {job.job_id}"]
    assert client.hget(keys.job(job.job_id), "number") == "1"
    assert client.zcard(keys.OPEN) == client.zcard(keys.EXPIRING) == 3
