"""The Celery app, and jobs as its messages.

The messages are built by Celery and encoded by kombu, so that they are theirs to the letter; only putting them on a
list is ours. Nothing here imports a model runtime: the API and the dashboard use this module too.
"""

import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import redis
from celery import Celery
from celery.utils.saferepr import saferepr
from kombu import Connection, Queue
from kombu.serialization import dumps as serialize

from app import quick_json, tasks
from app.config import Settings
from app.priority import Priority
from app.registry import NewJob
from app.tasks.base import Task

#: How long a stopping worker lets running jobs finish before it gives them back.
SOFT_SHUTDOWN_S = 25
#: Slower loads than this are given up; only replacements of a dead process are held to it.
_LOAD_TIMEOUT_S = 180


class CeleryApp(Celery):  # type: ignore[misc]  # Celery carries no types
    """A Celery app that knows this installation's settings, and consumes the queues of `served`."""

    events_cls = "app.worker.events:Events"

    def __init__(self, settings: Settings, served: Sequence[Task[Any]] = ()) -> None:
        super().__init__("darkroom", broker=settings.celery_url, set_as_current=False)
        self.settings = settings
        self.conf.update(_configuration(settings, served or tasks.TASKS))

    @cached_property
    def messages(self) -> "Messages":
        """What encodes jobs for this app's workers."""
        return Messages(self)

    @cached_property
    def redis(self) -> redis.Redis:
        """A client for a worker's main process, apart from Celery's own: it decodes, and never waits long."""
        return redis.Redis.from_url(
            self.settings.broker_url, decode_responses=True, socket_timeout=2, socket_connect_timeout=1
        )

    @cached_property
    def Worker(self) -> Any:  # noqa: N802  # Celery's name
        """What `celery worker` runs."""
        return self.subclass_with_self("app.worker.stopping:StoppingWorker")


def _configuration(settings: Settings, served: Sequence[Task[Any]]) -> dict[str, Any]:
    return {
        "result_backend": f"app.backend:FencedBackend+{settings.celery_url.removeprefix('redis+')}",
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
        # STARTED is ours to write: with it the run becomes its process's.
        "task_track_started": False,
        # A message is its worker's until its job has ended. It goes back when its process dies and its run cannot be
        # published again at once.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "app.worker.pool:RememberingPool",
        "worker_consumer": "app.worker.events:PatientConsumer",
        "worker_concurrency": settings.processes,
        "worker_proc_alive_timeout": _LOAD_TIMEOUT_S,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_S,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": True,
        "worker_max_memory_per_child": settings.worker_max_memory and settings.worker_max_memory // 1024,
        "task_time_limit": settings.task_time_limit,
        "task_soft_time_limit": settings.soft_time_limit,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A Redis that refuses to write is waited for like one that is away.
        "broker_channel_error_retry": True,
        # A message that comes again while its job runs would fill the only place left, and idle the other processes.
        "worker_enable_prefetch_count_reduction": False,
        "broker_transport_options": {
            "priority_steps": sorted(Priority),
            "queue_order_strategy": "round_robin",
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # For what makes a connection on the way; without it, it would try for ever and hear no signal.
            "max_retries": 1,
        },
        # A worker holds its finished result until Redis is back, however long that takes.
        "result_backend_always_retry": True,
        "result_backend_max_retries": float("inf"),
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 2,
        "redis_retry_on_timeout": True,
        # Connections by a Unix socket are not made with it.
        "redis_socket_keepalive": not settings.is_by_socket,
        "redis_backend_health_check_interval": 10,
    }


class Messages:
    """Encodes jobs as the messages Celery's workers expect on a Redis list."""

    def __init__(self, celery: CeleryApp) -> None:
        self._celery = celery
        # Never connects: it is used for kombu's encoding alone.
        self._channel = Connection("memory://").channel()
        #: A message of each task, as Celery and kombu make it.
        self._patterns: dict[str, dict[str, Any]] = {}

    def encode(self, record: NewJob) -> str:
        """The message of a job: its id, its task and the path of its upload.

        Celery takes a hundred calls to make one. All but what is a job's own is the same in all messages of its task.
        """
        pattern = self._patterns.get(record.task)
        if pattern is None:
            self._patterns[record.task] = pattern = self._pattern(record.task)
        args, kwargs = (record.path,), {"options": record.options, "model": record.model}
        headers = {
            **pattern["headers"],
            "id": record.job_id,
            "root_id": record.job_id,
            "argsrepr": _shown(args),
            "kwargsrepr": _shown(kwargs),
        }
        properties = {
            **pattern["properties"],
            "correlation_id": record.job_id,
            "priority": record.priority,
            "delivery_tag": str(uuid.uuid4()),
        }
        _, _, embedded = pattern["body"]
        body = quick_json.dumps([args, kwargs, embedded])
        return quick_json.dumps({**pattern, "body": body, "headers": headers, "properties": properties})

    def _pattern(self, task: str) -> dict[str, Any]:
        """A message of a task, its body not encoded. Source of the envelope: kombu's virtual transport."""
        message = self._celery.amqp.create_task_message("", task)
        content_type, content_encoding, body = serialize(message.body, serializer="json")
        pattern: dict[str, Any] = self._channel.prepare_message(
            body, None, content_type, content_encoding, message.headers, {**message.properties, "delivery_mode": 2}
        )
        pattern["properties"]["delivery_info"] = {"exchange": "", "routing_key": task}
        return {**pattern, "body": message.body}


#: Shorter arguments are shown as they are.
_SHOWN_WHOLE = 512
_SHOWN_MOST = 1024


def _shown(arguments: Any) -> str:
    """Arguments as dashboards show them; Celery's own way takes long to see what is short."""
    text = repr(arguments)
    return text if len(text) < _SHOWN_WHOLE else str(saferepr(arguments, _SHOWN_MOST))
