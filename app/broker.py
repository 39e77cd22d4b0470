"""The Celery app, and how a job gets onto its queue.

A job's record and its message are written in one Redis transaction: both or neither. The message is built by Celery and
encoded by kombu, so that it is theirs to the letter; only the LPUSH is ours. Nothing here imports a model runtime: the
API and the dashboard use this module too.
"""

import uuid
from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property
from typing import Any

from celery import Celery
from kombu import Connection, Queue
from kombu.serialization import dumps as serialize
from kombu.utils.json import dumps
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.client import Pipeline

from app import keys, registry, tasks
from app.config import Settings
from app.registry import Batch, JobRecord
from app.tasks.base import Task

#: How long a stopping worker lets running jobs finish before it gives them back.
SOFT_SHUTDOWN_S = 25
#: Redis's own redelivery, left to the rarest of cases; recovery is ours.
_VISIBILITY_TIMEOUT_S = 86_400
#: Slower loads than this are given up; only replacements of a dead process are held to it.
_LOAD_TIMEOUT_S = 180
_SOFT_LIMIT_LEAD_S = 10


class Priority(IntEnum):
    """The lanes of a queue. On Redis, 0 is served first."""

    #: Served before anything of the lane below.
    HIGH = 0
    #: What everybody gets who does not ask.
    NORMAL = 5


class CeleryApp(Celery):  # type: ignore[misc]  # Celery carries no types
    """A Celery app that knows this installation's settings, and consumes the queues of `served`."""

    def __init__(self, settings: Settings, served: Sequence[Task[Any]] = ()) -> None:
        super().__init__("darkroom", broker=settings.broker_url, set_as_current=False)
        self.settings = settings
        self.conf.update(_configuration(settings, served or tasks.TASKS))

    @cached_property
    def Worker(self) -> Any:  # noqa: N802  # Celery's name
        """What `celery worker` runs."""
        return self.subclass_with_self("app.worker.stopping:StoppingWorker")


def _configuration(settings: Settings, served: Sequence[Task[Any]]) -> dict[str, Any]:
    return {
        "result_backend": f"app.backend:FencedBackend+{settings.broker_url}",
        "task_queues": [Queue(task.name, routing_key=task.name) for task in served],
        # Every message names its queue; Celery wants these to exist all the same.
        "task_default_queue": served[0].name,
        "task_default_exchange": "darkroom",
        "task_create_missing_queues": False,
        # JSON alone: a pickle in Redis would be code to run.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        # Celery's own expiry of results is not used: the backend's script sets the record's.
        "result_expires": None,
        "result_extended": True,
        # STARTED is ours to write, once the run's lock is taken.
        "task_track_started": False,
        # A message stays in Redis until its job has ended, and goes back when the process that ran it dies.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": settings.worker_concurrency,
        "worker_proc_alive_timeout": _LOAD_TIMEOUT_S,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_S,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": True,
        "task_time_limit": settings.task_time_limit,
        "task_soft_time_limit": settings.task_time_limit - _SOFT_LIMIT_LEAD_S,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A Redis that refuses to write is waited for like one that is away.
        "broker_channel_error_retry": True,
        # A message that comes again while its job runs would fill the only place left, and idle the other processes.
        "worker_enable_prefetch_count_reduction": False,
        "broker_transport_options": {
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            "unacked_mutex_expire": 30,
            "priority_steps": sorted(Priority),
            "queue_order_strategy": "round_robin",
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        # A worker holds its finished result until Redis is back, however long that takes.
        "result_backend_always_retry": True,
        "result_backend_max_retries": float("inf"),
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 2,
        "redis_retry_on_timeout": True,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 10,
    }


class Messages:
    """Encodes jobs as the messages Celery's workers expect on a Redis list."""

    def __init__(self, celery: CeleryApp) -> None:
        self._celery = celery
        # Never connects: it is used for kombu's encoding alone.
        self._channel = Connection("memory://").channel()

    def encode(self, record: JobRecord) -> str:
        """The message of a job: its id, its task and the path of its upload. Source: kombu's virtual transport."""
        message = self._celery.amqp.create_task_message(
            record.job_id,
            record.task,
            args=(record.path,),
            kwargs={"options": record.options, "model": record.model},
        )
        content_type, content_encoding, body = serialize(message.body, serializer="json")
        envelope = self._channel.prepare_message(
            body,
            record.priority,
            content_type,
            content_encoding,
            message.headers,
            {**message.properties, "delivery_mode": 2},
        )
        envelope["properties"]["delivery_info"] = {"exchange": "", "routing_key": record.task}
        envelope["properties"]["delivery_tag"] = str(uuid.uuid4())
        return str(dumps(envelope))


#: Gives a message the next number of its lane.
_NUMBER = """
local number = redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
redis.call('HSET', KEYS[1], 'number', number)
"""

#: Publishes a job that is due again, unless another keeper has done it.
_REPUBLISH = f"""
if redis.call('ZREM', KEYS[3], ARGV[2]) == 0 then return 0 end
{_NUMBER}
redis.call('LPUSH', KEYS[4], ARGV[3])
return 1
"""


async def enqueue(
    redis: AsyncRedis,
    jobs: Sequence[tuple[JobRecord, str]],
    *,
    tombstone_ttl_s: int,
    batch: Batch | None = None,
    batch_ttl_s: int = 0,
) -> list[int]:
    """Write records, their indexes and their messages, and the batch they are in, or nothing.

    Returns how many jobs are ahead of each in its lane. Raises `redis.RedisError` if Redis would not.
    """
    async with redis.pipeline(transaction=True) as transaction:
        places = [_queue(transaction, record, message, tombstone_ttl_s=tombstone_ttl_s) for record, message in jobs]
        if batch is not None:
            registry.add_batch(transaction, batch, ttl_s=batch_ttl_s)
        said = await transaction.execute()
    return [max(0, int(said[place]) - int(said[place + 1] or 0) - 1) for place in places]


def _queue(transaction: Pipeline, record: JobRecord, message: str, *, tombstone_ttl_s: int) -> int:
    """Queue the writes of one job. Returns the place of its number among the answers, that of its lane's next to it."""
    counter, cursor = (name(record.task, record.priority) for name in (keys.lane_counter, keys.lane_cursor))
    registry.add(transaction, record, tombstone_ttl_s=tombstone_ttl_s)
    place = len(transaction)
    transaction.eval(f"{_NUMBER} return number", 2, keys.job(record.job_id), keys.LANES, counter)
    transaction.hget(keys.LANES, cursor)
    transaction.lpush(keys.lane(record.task, record.priority), message)
    return place


def republish(redis: Redis, record: JobRecord, message: str) -> bool:
    """Put a job that is due for another attempt back on its lane, once. False if somebody else did."""
    lane = keys.lane(record.task, record.priority)
    counter = keys.lane_counter(record.task, record.priority)
    published = redis.eval(
        _REPUBLISH, 4, keys.job(record.job_id), keys.LANES, keys.RETRIES, lane, counter, record.job_id, message
    )
    return bool(published)
