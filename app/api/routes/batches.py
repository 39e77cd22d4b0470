"""Many pictures in one request: each is accepted as a job or refused for its own reason."""

import contextlib
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from app import errors
from app.api import body, examples, openapi
from app.api.body import content_type
from app.api.claims import REPLAYED, Claiming, fingerprint_of
from app.api.deps import Service, ServiceDep
from app.api.multipart import read_form
from app.api.submissions import (
    KeptIfAccepted,
    check_room,
    discard,
    offered,
    probe_and_keep,
    wants_fresh,
    work_asked,
)
from app.batch import Batch, BatchEntry
from app.config import Settings
from app.documents import Job, batch_document, batch_status, batch_url
from app.errors import AppError, BadRequest, DiskFull, FileTooLarge
from app.idempotency import Answered, Claimed
from app.incoming import IncomingUpload
from app.jobs import Picture
from app.schemas import BatchDocument, BatchStatus
from app.tasks.base import Task


def router(tasks: tuple[Task[Any], ...], settings: Settings) -> APIRouter:
    """`POST /batches/{task}` for every task, and `GET /batches/{batch_id}`."""
    routes = APIRouter(tags=["batches"])
    for task in tasks:
        _add(routes, task, settings)

    @routes.get(
        "/batches/{batch_id}",
        summary="Where the jobs of a batch are.",
        responses={
            200: openapi.answer("How many are where, and each of them.", examples.BATCH_STATUS),
            **openapi.problems(errors.NotFound),
        },
    )
    async def batch(batch_id: str, service: ServiceDep) -> BatchStatus:
        """Read at one moment: the counts add up to the number of files."""
        found = await service.jobs.get_batch(batch_id)
        job_ids = [entry.job_id for entry in found.entries if entry.job_id is not None]
        return batch_status(found, await service.jobs.get_many(job_ids))

    return routes


def _add(routes: APIRouter, task: Task[Any], settings: Settings) -> None:
    async def submit(request: Request, service: ServiceDep) -> Response:
        accepted = await _accept(request, service, task)
        if isinstance(accepted, Answered):
            batch, replayed = await _answered(service, accepted), REPLAYED
        else:
            batch, replayed = accepted, {}
        return JSONResponse(
            batch_document(batch).model_dump(mode="json"),
            status_code=202,
            headers={"Location": batch_url(batch.batch_id), **replayed},
        )

    routes.add_api_route(
        f"/batches/{task.name}",
        submit,
        methods=["POST"],
        status_code=202,
        name=f"{task.name}_batch",
        summary=f"{task.summary} Many at once.",
        description=f"Up to {settings.max_batch_files} files in one form, with the options for all of them. Each is "
        "accepted or refused on its own; what is accepted is accepted together.",
        response_model=BatchDocument,
        responses={
            202: openapi.answer(
                "Taken in; `jobs` says what became of each file.",
                {**examples.BATCH, "task": task.name},
                headers={"Location": openapi.header("The batch's status."), **openapi.REPLAYED},
            ),
            **openapi.problems(
                errors.BadRequest,
                errors.IdempotencyInFlight,
                errors.FileTooLarge,
                errors.InvalidOption,
                errors.IdempotencyMismatch,
                errors.ModelUnavailable,
                errors.QueueFull,
                errors.DiskFull,
            ),
        },
        openapi_extra=openapi.batch_submission(task, settings),
    )


async def _accept(request: Request, service: Service, task: Task[Any]) -> Batch | Answered:
    """Take all files in, refuse those that are not sound, submit the others together; or what was answered before."""
    settings, storage = service.settings, service.storage
    async with Claiming(request, service) as held:
        if not isinstance(held, Answered):
            check_room(request, service, max_bytes=settings.max_batch_bytes)
        with contextlib.ExitStack() as stack:
            files, fields = await _receive(request, service, stack)
            work = work_asked({**fields}, task, settings)
            asked = fingerprint_of(work, [file.sha256 for file in files], settings=settings)
            if isinstance(held, Answered):
                return held.check(asked)
            work = await offered(work, service, fresh=wants_fresh(request.headers))
            try:
                for file in files:
                    await to_thread.run_sync(partial(file.settle, max_pixels=settings.max_pixels))
            except BaseException:
                discard(storage, [file.picture for file in files if file.picture])
                raise
        entries = tuple(file.entry() for file in files)
        batch = Batch(batch_id=str(uuid.uuid4()), task=task.name, entries=entries)
        claim = held and held.completed(Answered(asked, batch_id=batch.batch_id))
        pictures = {file.upload.job_id: file.picture for file in files if file.picture is not None}
        try:
            with KeptIfAccepted(storage, pictures.values()):
                jobs = await service.jobs.submit_batch(batch, work, pictures, claim=claim)
        except Claimed as elsewhere:
            return Answered.from_text(str(elsewhere)).check(asked)
        discard(storage, [pictures[job.job_id] for job in jobs if job.cached])
        return batch


async def _answered(service: Service, answered: Answered) -> Batch:
    """A batch as it was accepted. What a file was called that has been erased is told no more."""
    batch = await service.jobs.get_batch(str(answered.batch_id))
    found = await service.jobs.get_many([entry.job_id for entry in batch.entries if entry.job_id])
    names = {job.record.job_id: job.record.filename for job in found if isinstance(job, Job)}
    entries = [replace(entry, filename=names.get(entry.job_id or "", entry.filename)) for entry in batch.entries]
    return replace(batch, entries=tuple(entries))


async def _receive(
    request: Request, service: Service, stack: contextlib.ExitStack
) -> tuple[list["_File"], dict[str, str | list[str]]]:
    """The files of the form, which leave with `stack` unless they are kept, and its fields."""
    settings, files = service.settings, list[_File]()

    def new_file(filename: str | None) -> _File:
        if len(files) >= settings.max_batch_files:
            raise BadRequest(f"There are more than {settings.max_batch_files} files in the request. Send fewer.")
        upload = service.storage.incoming(str(uuid.uuid4()), max_bytes=settings.max_file_size)
        files.append(_File(stack.enter_context(upload), filename))
        return files[-1]

    kind, parameters = content_type(request)
    if kind != "multipart/form-data":
        raise BadRequest("Send multipart/form-data with each picture as a part named 'file'.")
    pieces = body.Chunks(request, max_bytes=settings.max_batch_bytes)
    fields = await read_form(parameters.get(b"boundary"), pieces, new_file)
    return files, fields


class _File:
    """One file of the form on its way to be a job, or an error."""

    def __init__(self, upload: IncomingUpload, filename: str | None) -> None:
        self.upload = upload
        self.picture: Picture | None = None
        self._filename = filename
        self._error: AppError | None = None

    @property
    def sha256(self) -> str | None:
        """Of its content; None for one that is too large, of which an unknown part was taken."""
        return None if self._error else self.upload.sha256

    def write(self, chunk: memoryview) -> None:
        """Take some more; what comes after too much is let go by."""
        if self._error is None:
            try:
                self.upload.write(chunk)
            except FileTooLarge as error:
                self._error = error

    def finish(self) -> None:
        """There is no more."""
        self.upload.finish()

    def settle(self, *, max_pixels: int) -> None:
        """See whether it is a sound image, and keep it if so. Raises `DiskFull`."""
        try:
            if self._error is None:
                self.picture = probe_and_keep(self.upload, self._filename, max_pixels=max_pixels)
        except DiskFull:
            raise
        except AppError as error:
            self._error = error

    def entry(self) -> BatchEntry:
        """What became of it."""
        if self._error:
            return BatchEntry(filename=self._filename, job_id=None, error=self._error.description)
        return BatchEntry(filename=self._filename, job_id=self.upload.job_id)
