"""The service itself: what it can do and how it is."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Response
from redis.exceptions import RedisError
from starlette.responses import JSONResponse

from app import announcements, keys
from app.announcements import Announcement
from app.api import openapi
from app.api.deps import Service, ServiceDep
from app.broker import Priority
from app.schemas import Health, ModelsDocument, TaskModels
from app.tasks.base import Task, public_name

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
_MODELS = {
    "models": [
        {
            "task": "classify",
            "name": "models/efficientnet-lite0",
            "revision": "18df6885ca38",
            "runtime": "torch",
            "device": "cpu",
            "labels": 1000,
            "workers": ["darkroom@host"],
            "error": None,
        }
    ]
}


def router(tasks: tuple[Task[Any], ...]) -> APIRouter:
    """`GET /models` and the health calls."""
    routes = APIRouter(tags=["service"])
    unhealthy = {**openapi.answer("Not ready; `reasons` says why.", _UNHEALTHY), "model": Health}

    @routes.get(
        "/models",
        summary="What the live workers can do.",
        responses={200: openapi.answer("Every task and its model.", _MODELS), **openapi.problems()},
    )
    async def models(service: ServiceDep) -> ModelsDocument:
        """Told by the workers themselves; nobody is asked."""
        workers = await announcements.live_workers(service.redis)
        return ModelsDocument(models=[_models(task, workers, service) for task in tasks])

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
        """503 until Redis answers and a worker has loaded its models."""
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


def _models(task: Task[Any], workers: list[Announcement], service: Service) -> TaskModels:
    reports = {worker.worker: worker.tasks[task.name] for worker in workers if task.name in worker.tasks}
    loaded = {worker: report for worker, report in reports.items() if report.model is not None}
    report = next(iter(loaded.values()), None)
    model = report.model if report else None
    configured = ", ".join(public_name(source) for source in task.sources(service.settings)) or task.name
    return TaskModels(
        task=task.name,
        name=model.name if model else configured,
        revision=model.revision if model else None,
        runtime=model.runtime if model else None,
        device=model.device if model else None,
        labels=report.labels if report else None,
        workers=sorted(loaded),
        error=next((report.error for report in reports.values() if report.error), None),
    )


async def _health(service: Service, tasks: tuple[Task[Any], ...]) -> Health:
    now = datetime.now(UTC)
    try:
        workers = await announcements.live_workers(service.redis)
        async with service.redis.pipeline(transaction=False) as pipeline:
            for task in tasks:
                for priority in Priority:
                    pipeline.llen(keys.lane(task.name, priority))
            depth = sum(await pipeline.execute())
    except RedisError:
        return Health(
            status="unavailable",
            redis_connected=False,
            workers_available=0,
            queue_depth=None,
            timestamp=now,
            reasons=["Redis does not answer."],
        )
    reasons = _reasons(tasks, workers)
    return Health(
        status="unavailable" if reasons else "ok",
        redis_connected=True,
        workers_available=len(workers),
        queue_depth=depth,
        timestamp=now,
        reasons=reasons,
    )


def _reasons(tasks: tuple[Task[Any], ...], workers: list[Announcement]) -> list[str]:
    if not workers:
        return ["No worker has announced itself."]
    reasons = []
    for task in tasks:
        reports = [worker.tasks[task.name] for worker in workers if task.name in worker.tasks]
        if any(report.model for report in reports):
            continue
        failure = next((report.error for report in reports if report.error), None)
        reasons.append(f"{task.name}: {failure}" if failure else f"{task.name}: no worker has loaded its model yet.")
    return reasons
