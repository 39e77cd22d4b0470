"""The worker's side of Redis, for tests that play the worker."""

from types import SimpleNamespace
from typing import Any

from app import queues
from app.backend import FencedBackend
from app.broker import CeleryApp
from app.config import Settings
from app.queues import Why


def backend_of(settings: Settings) -> FencedBackend:
    """The result backend, as a worker process has it."""
    backend: FencedBackend = CeleryApp(settings).backend
    return backend


def request_of(job_id: str, *, token: str = "worker:1") -> Any:
    """What Celery gives a backend of the job it runs."""
    return SimpleNamespace(id=job_id, run_token=token)


def finish(backend: FencedBackend, job_id: str) -> None:
    """Run a job to its end."""
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.store_result(job_id, RESULT, "SUCCESS", request=request_of(job_id))


def fail(backend: FencedBackend, job_id: str, error: Exception) -> None:
    """Run a job to a failure."""
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.store_result(job_id, error, "FAILURE", request=request_of(job_id))


def crash(backend: FencedBackend, job_id: str) -> None:
    """Run a job in processes that die, as often as it may."""
    for number in range(backend.app.settings.task_max_deliveries):
        request = request_of(job_id, token=f"worker:{number}")
        backend.start(job_id, {"progress": 5}, request=request)
        queues.requeue(backend.app.redis, job_id, Why.CRASHED, app=backend.app, token=request.run_token)


#: What a classification leaves in the backend.
RESULT: dict[str, Any] = {
    "model": {"name": "fake", "revision": "1", "runtime": "python", "device": "cpu"},
    "answer": {"predictions": [{"label": "dog", "score": 0.9}]},
    "timings": {"queued_ms": 1.0, "decode_ms": 2.0, "preprocess_ms": 3.0, "inference_ms": 4.0, "postprocess_ms": 0.5},
}
