"""The service itself: what it can do and how it is."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Response
from redis.exceptions import RedisError
from starlette.responses import JSONResponse

from app import announcements, keys
from app.announcements import Announcement, LoadReport
from app.api import openapi
from app.api.deps import Service, ServiceDep
from app.config import Settings, public_name
from app.priority import Priority
from app.schemas import Health, ModelsDocument, TaskModel
from app.tasks.base import Task

_HEALTHY = {
    "status": "ok",
    "redis_connected": True,
    "workers_available": 1,
    "queue_depth": 0,
    "timestamp": "2026-11-21T10:30:00.120Z",
    "reasons": [],
}
_UNHEALTHY = {
    **_HEALTHY,
    "status": "unavailable",
    "workers_available": 0,
    "reasons": ["No worker has announced itself."],
}
_STOPPING = "This process is stopping; ask another."
_MODELS = {
    "models": [
        {
            "task": "classify",
            "name": "models/efficientnet-lite0",
            "default": True,
            "revision": "18df6885ca38",
            "runtime": "openvino",
            "device": "cpu",
            "labels": 1000,
            "workers": ["darkroom@host"],
            "error": None,
        }
    ]
}


def router(tasks: tuple[Task[Any], ...], settings: Settings) -> APIRouter:
    """`GET /models` and the health calls."""
    routes = APIRouter(tags=["service"])
    unhealthy = {**openapi.answer("Not ready; `reasons` says why.", _UNHEALTHY), "model": Health}

    @routes.get(
        "/models",
        summary="What the live workers can do.",
        responses={200: openapi.answer("Every task and its models.", _MODELS), **openapi.problems()},
    )
    async def models(service: ServiceDep) -> ModelsDocument:
        """Told by the workers themselves; nobody is asked."""
        workers = await announcements.live_workers(service.redis)
        return ModelsDocument(models=[entry for task in tasks for entry in _models(task, workers, settings)])

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", summary="How the service is.", responses={200: openapi.answer("In any case.", _HEALTHY)})
    async def health(service: ServiceDep) -> Health:
        """Always 200: for people and dashboards. Balancers ask `/health/ready`."""
        return await _health(service, tasks)

    @routes.head("/health/ready", include_in_schema=False)
    @routes.get(
        "/health/ready",
        summary="Whether to send work here.",
        response_model=Health,
        responses={200: openapi.answer("Ready.", _HEALTHY), 503: unhealthy},
    )
    async def ready(service: ServiceDep) -> Response:
        """503 until Redis answers and a worker has loaded a model, and once this process stops.

        `reasons` names the tasks that still lack their model.
        """
        document = await _health(service, tasks)
        return JSONResponse(document.model_dump(mode="json"), status_code=200 if document.status == "ok" else 503)

    @routes.head("/health/live", include_in_schema=False)
    @routes.get(
        "/health/live",
        summary="Whether this process answers.",
        responses={200: openapi.answer("It does.", {"status": "ok"})},
    )
    async def live() -> dict[str, str]:
        """Asks nothing of anybody else."""
        return {"status": "ok"}

    return routes


def _models(task: Task[Any], workers: list[Announcement], settings: Settings) -> Iterator[TaskModel]:
    reports = _reports(task, workers)
    error = next((report.error for report in reports.values() if report.error), None)
    for place, source in enumerate(task.models(settings)):
        name = public_name(source)
        loaded = {
            worker: model for worker, report in reports.items() for model in report.models if model.info.name == name
        }
        model = next(iter(loaded.values()), None)
        yield TaskModel(
            task=task.name,
            name=name,
            default=place == 0,
            revision=model.info.revision if model else None,
            runtime=model.info.runtime if model else None,
            device=model.info.device if model else None,
            labels=model.labels if model else None,
            workers=sorted(loaded),
            error=error,
        )


def _reports(task: Task[Any], workers: list[Announcement]) -> dict[str, LoadReport]:
    """How loading went, by worker, for those that have come to an end with it."""
    reports = {worker.worker: worker.tasks.get(task.name) for worker in workers}
    return {worker: report for worker, report in reports.items() if report is not None}


async def _health(service: Service, tasks: tuple[Task[Any], ...]) -> Health:
    health = await _seen(service, tasks)
    if service.draining.begun:
        return health.model_copy(update={"status": "unavailable", "reasons": [_STOPPING, *health.reasons]})
    return health


async def _seen(service: Service, tasks: tuple[Task[Any], ...]) -> Health:
    now = datetime.now(UTC)
    try:
        workers = await announcements.live_workers(service.redis)
        lanes = [keys.lane(task.name, priority) for task in tasks for priority in Priority]
        depth = sum(await asyncio.gather(*(_length(service, lane) for lane in lanes)))
    except RedisError:
        return Health(
            status="unavailable",
            redis_connected=False,
            workers_available=0,
            queue_depth=None,
            timestamp=now,
            reasons=["Redis does not answer."],
        )
    loaded = any(report.models for task in tasks for report in _reports(task, workers).values())
    return Health(
        status="ok" if loaded else "unavailable",
        redis_connected=True,
        workers_available=len(workers),
        queue_depth=depth,
        timestamp=now,
        reasons=_reasons(tasks, workers),
    )


async def _length(service: Service, lane: str) -> int:
    return await service.redis.llen(lane)


def _reasons(tasks: tuple[Task[Any], ...], workers: list[Announcement]) -> list[str]:
    if not workers:
        return ["No worker has announced itself."]
    served = {task for worker in workers for task in worker.tasks}
    reasons = []
    for task in tasks:
        reports = _reports(task, workers).values()
        if task.name not in served or any(report.models for report in reports):
            continue
        failure = next((report.error for report in reports if report.error), None)
        reasons.append(f"{task.name}: {failure}" if failure else f"{task.name}: no worker has loaded its model yet.")
    return reasons
