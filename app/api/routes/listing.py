"""The list of jobs, a page at a time."""

import base64
import re
from collections.abc import Collection
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app import errors, keys
from app.api import examples, openapi
from app.api.deps import ServiceDep
from app.api.submissions import one_of
from app.config import Settings
from app.documents import status_document
from app.registry import Cursor
from app.schemas import JobPage
from app.states import Status
from app.tasks.base import Task

_MAX_LIMIT = 100
_LIMIT = 20
#: The way from the place on, and the place: milliseconds and the id of a job.
_CURSOR = re.compile(r"([<>])(\d{13}:[0-9a-f-]{36})", re.ASCII)


def _decoded(text: str) -> str:
    try:
        decoded = base64.urlsafe_b64decode(text).decode("ascii")
    except ValueError:
        decoded = ""
    if not _CURSOR.fullmatch(decoded):
        raise ValueError("It is none of ours. Follow the `next` and `previous` of a page, or begin without it")
    return decoded


class Filters(BaseModel):
    """Which jobs, and which of their pages."""

    # A filter that is misspelt would give jobs that were not asked for.
    model_config = ConfigDict(extra="forbid")

    status: list[Status] = Field(default=[], description="Only jobs of this status; may be repeated.")
    dead: bool = Field(default=False, description="Only failed jobs that were given up because they crash workers.")
    limit: int = Field(default=_LIMIT, ge=1, le=_MAX_LIMIT, description="Jobs on a page.")
    cursor: Annotated[str, AfterValidator(_decoded)] | None = Field(
        default=None, description="Where the page begins: part of `next` and `previous`, which are to be followed."
    )

    def indexes(self, tasks: Collection[str]) -> list[str]:
        """The indexes that hold these jobs of some tasks."""
        statuses = set(self.status or Status)
        if self.dead:
            return [keys.listed(task, keys.DEAD) for task in tasks if Status.FAILED in statuses]
        return [keys.listed(task, status) for task in tasks for status in statuses]

    @property
    def begin(self) -> Cursor | None:
        """Where the page begins, if not with the newest job."""
        match = _CURSOR.fullmatch(self.cursor or "")
        return match and Cursor(match[2], newest_first=match[1] == ">")


def router(tasks: tuple[Task[Any], ...], _settings: Settings) -> APIRouter:
    """`GET /jobs`."""
    routes = APIRouter(tags=["jobs"])
    names = [task.name for task in tasks]

    class FiltersAndTask(Filters):
        task: list[Annotated[str, Field(json_schema_extra={"enum": names})]] = Field(
            default=[], description="Only jobs of this task; may be repeated."
        )

    @routes.get(
        "/jobs",
        summary="The jobs there are.",
        responses={
            200: openapi.answer("A page, newest first; `next` and `previous` lead to those around it.", examples.PAGE),
            **openapi.problems(errors.InvalidOption),
        },
    )
    async def listed(request: Request, service: ServiceDep, filters: Annotated[FiltersAndTask, Query()]) -> JobPage:
        """Each job has its place by its submission, and keeps it whatever becomes of it."""
        asked = {one_of(names, task, option="task") for task in filters.task}
        page = await service.jobs.get_page(filters.indexes(asked or names), cursor=filters.begin, limit=filters.limit)
        return JobPage(
            next=_url(request, page.next),
            previous=_url(request, page.previous),
            results=[status_document(job) for job in page.jobs],
        )

    return routes


def _url(request: Request, cursor: Cursor | None) -> str | None:
    """The same list from somewhere else."""
    if cursor is None:
        return None
    filters = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    text = f"{'>' if cursor.newest_first else '<'}{cursor.place}"
    return f"/jobs?{urlencode([*filters, ('cursor', base64.urlsafe_b64encode(text.encode()).decode())])}"
