"""The HTTP application, which `python -m app.api` serves; `uvicorn --factory app.api.main:create_app` can as well.

Imports no model runtime: this process only takes pictures in and reads Redis.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from app import tasks
from app.api import errors
from app.api.deps import Service
from app.api.direct import HotRoutes
from app.api.draining import Draining, DrainingMiddleware
from app.api.openapi import result_schema, with_nulls, without_validation_errors
from app.api.patience import connect
from app.api.routes import batches, control, files, jobs, listing, service
from app.api.routes import tasks as task_routes
from app.availability import Availability
from app.broker import CeleryApp, Messages
from app.changes import Changes
from app.config import Settings, get_settings
from app.jobs import Jobs
from app.schemas import JobProblem, Problem
from app.storage import Storage

_DESCRIPTION = "Post an image, get a job id in milliseconds, watch its progress, fetch the result."
_VERSION = "0.1.0"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Without `settings` it reads them from the environment."""
    settings = settings or get_settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        redis = connect(settings.broker_url)
        changes = Changes(redis)
        draining = Draining(changes)
        messages = Messages(CeleryApp(settings))
        app.state.service = Service(
            settings=settings,
            redis=redis,
            storage=Storage(settings.storage_root),
            jobs=Jobs(redis=redis, messages=messages, changes=changes, settings=settings),
            availability=Availability(redis),
            draining=draining,
        )
        async with changes.listening():
            yield {"draining": draining}
        await redis.aclose()

    app = FastAPIOffline(
        title="Darkroom", version=_VERSION, description=_DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    errors.add_handlers(app)
    # What is called most is looked for first, and straight in the application's own list: routers that are included are
    # each searched anew for every request.
    for part in (task_routes, jobs, batches, listing, control, files, service):
        app.router.routes.extend(part.router(tasks.TASKS, settings).routes)
    submissions = [f"/{task.name}" for task in tasks.TASKS]
    hot = HotRoutes(
        app.build_middleware_stack(), app.routes, paths=[*submissions, "/status/{job_id}", "/result/{job_id}"]
    )
    app.middleware_stack = DrainingMiddleware(hot)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def without_detours(app: FastAPI) -> ASGIApp:
    """The application for a server of ours: requests go straight to what is outermost of its own.

    FastAPI would look first, for each request, whether OpenTelemetry has been set up, which nothing here does.
    """

    def call(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or app.middleware_stack is None:
            return app(scope, receive, send)
        scope["app"] = app
        return app.middleware_stack(scope, receive, send)

    return call


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the schemas that only our own responses refer to."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        sent: list[type[BaseModel]] = [Problem, JobProblem, *(result_schema(task) for task in tasks.TASKS)]
        mentioned: list[tuple[type[BaseModel], Literal["validation", "serialization"]]]
        mentioned = [(model, "serialization") for model in sent]
        mentioned += [(task.options, "validation") for task in tasks.TASKS]
        _, extra = models_json_schema(mentioned, ref_template="#/components/schemas/{model}")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in extra["$defs"].items():
            schemas.setdefault(name, schema)
        app.openapi_schema = with_nulls(without_validation_errors(document))
    return app.openapi_schema
