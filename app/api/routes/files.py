"""The artifacts of completed jobs, to download."""

import os
import re
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse
from starlette.types import Message, Receive, Scope, Send

from app import errors
from app.api import openapi
from app.api.deps import ServiceDep
from app.api.errors import render
from app.config import Settings
from app.documents import artifact_type
from app.errors import NotFound, RangeNotSatisfiable
from app.tasks.base import Task

_MISSING = "This job has no file of this name. The result lists those there are under 'artifacts'."
#: As RFC 9110, 14.1.2 has it; a number has no more digits than any file needs.
_BYTE_RANGES = re.compile(rb"bytes=[\d\- \t,]{1,1000}", re.IGNORECASE)
_RANGES = "Bytes to send, such as `bytes=0-1023` (RFC 9110)."


def router(_tasks: tuple[Task[Any], ...], _settings: Settings) -> APIRouter:
    """`GET /files/{job_id}/{name}`."""
    routes = APIRouter(tags=["jobs"])
    whole = {
        "description": "The file.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {"ETag": openapi.header("Changes with the content."), "Accept-Ranges": openapi.header("`bytes`.")},
    }

    @routes.head("/files/{job_id}/{name}", include_in_schema=False)
    @routes.get(
        "/files/{job_id}/{name}",
        summary="A file that came with a result.",
        response_class=FileResponse,
        responses={
            200: whole,
            206: {**whole, "description": "The bytes that were asked for."},
            304: {"description": "The client has it already: `If-None-Match` names it."},
            **openapi.problems(errors.JobNotFound, errors.NotFound, errors.JobGone, errors.RangeNotSatisfiable),
        },
        openapi_extra={
            "parameters": [
                {"name": "Range", "in": "header", "description": _RANGES, "schema": {"type": "string"}},
                {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
            ]
        },
    )
    async def file(job_id: str, name: str, request: Request, service: ServiceDep) -> Response:
        """Only what the result lists under `artifacts` is there."""
        content_type = artifact_type(await service.jobs.get(job_id), name)
        if content_type is None:
            raise NotFound(_MISSING)
        path = service.storage.artifact(job_id, name)
        try:
            facts = await to_thread.run_sync(_look, path)
        except FileNotFoundError:  # erased since
            raise NotFound(_MISSING) from None
        answer = _Artifact(path, facts, content_type)
        # Weak comparison (RFC 9110, 13.1.2), which a proxy's W/ must not defeat.
        tags = ",".join(request.headers.getlist("if-none-match")).split(",")
        known = {tag.strip().removeprefix("W/") for tag in tags}
        return NotModifiedResponse(answer.headers) if {answer.headers["etag"], "*"} & known else answer

    return routes


def _look(path: Path) -> os.stat_result:
    """Size and time of a file."""
    return path.stat()


class _Artifact(FileResponse):
    """A file to be saved, not to be run: whatever its bytes look like, it is of the type that it says."""

    def __init__(self, path: Path, facts: os.stat_result, content_type: str) -> None:
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache"}
        super().__init__(path, headers=headers, media_type=content_type, filename=path.name, stat_result=facts)
        self._bytes = facts.st_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. What cannot be sent is a problem like any other, which the base class does not know.

        That is a range that the file has not, and a file that has been erased since it was looked for: the head is held
        back until there is something to follow it.
        """
        head: Message | None = None

        async def watched(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
                return
            if head is not None and head["status"] >= 400:
                return  # the body of an answer that is not ours
            if head is not None:
                await send(head)
                head = None
            await send(message)

        try:
            await super().__call__(_with_plain_range(scope), receive, watched)
        except FileNotFoundError:
            await render(NotFound(_MISSING))(scope, receive, send)
            return
        if head is not None:
            problem = RangeNotSatisfiable(f"The file has {self._bytes} bytes. Ask for a range of these.")
            await render(problem, headers={"Content-Range": f"bytes */{self._bytes}"})(scope, receive, send)


def _with_plain_range(scope: Scope) -> Scope:
    """Without a `Range` that is to be ignored: one of another unit, or for another method than GET (RFC 9110, 14.2)."""
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name != b"range" or (scope["method"] == "GET" and _BYTE_RANGES.fullmatch(value))
    ]
    return {**scope, "headers": headers}
