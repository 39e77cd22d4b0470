"""What the OpenAPI document says of answers and bodies that FastAPI cannot read off a signature."""

from functools import cache
from typing import Any

from pydantic import create_model

from app import errors
from app.api.errors import PROBLEM_JSON
from app.broker import Priority
from app.config import Settings, public_name
from app.errors import AppError
from app.schemas import JobProblem, Problem, ResultDocument
from app.tasks.base import Task

Responses = dict[int | str, dict[str, Any]]

JOB_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
_STATUS_FIELDS = {
    "job_id": JOB_ID,
    "task": "classify",
    "retry_at": None,
    "eta_s": None,
    "coalesced_with": None,
    "filename": "dog.jpg",
    "submitted_at": "2026-11-21T10:30:00.120Z",
    "expires_at": "2026-11-23T10:30:00.120Z",
    "error": None,
    "urls": {"status": f"/status/{JOB_ID}", "result": f"/result/{JOB_ID}"},
}
PENDING = {
    **_STATUS_FIELDS,
    "status": "pending",
    "state": "PENDING",
    "progress": 0,
    "queue_position": 2,
    "attempts": 0,
    "started_at": None,
    "updated_at": "2026-11-21T10:30:00.120Z",
    "finished_at": None,
}
PROCESSING = {
    **PENDING,
    "status": "processing",
    "state": "INFERENCE",
    "progress": 40,
    "queue_position": None,
    "attempts": 1,
    "started_at": "2026-11-21T10:30:00.131Z",
    "updated_at": "2026-11-21T10:30:00.142Z",
}
_RESULT_FIELDS = {
    "job_id": JOB_ID,
    "model": {"name": "models/efficientnet-lite0", "revision": "18df6885ca38", "runtime": "torch", "device": "cpu"},
    "timings": {
        "queued_ms": 4,
        "decode_ms": 4.1,
        "preprocess_ms": 6.3,
        "inference_ms": 27.9,
        "postprocess_ms": 0.2,
        "total_ms": 45,
    },
    "image": {"width": 768, "height": 576, "format": "jpeg", "bytes": 163759, "sha256": "5c8f…"},
    "attempts": 1,
    "cached": False,
    "coalesced_with": None,
    "submitted_at": "2026-11-21T10:30:00.120Z",
    "finished_at": "2026-11-21T10:30:00.165Z",
}

#: One telling sentence for each error, as its detail reads.
_DETAILS: dict[type[AppError], str] = {
    errors.BadRequest: "There is no file in the request. Send multipart/form-data with one part named 'file'.",
    errors.JobNotFound: errors.JobNotFound.SENTENCE,
    errors.JobFailed: "The job failed: the picture is damaged. Send an intact one.",
    errors.JobCancelled: "The job was cancelled.",
    errors.JobGone: errors.JobGone.SENTENCE,
    errors.FileTooLarge: "The file is larger than 10485760 bytes. Send a smaller one.",
    errors.UnsupportedImage: "This is no image of a supported format. Send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.",
    errors.InvalidImage: "The picture is damaged: its end is missing. Send the whole file.",
    errors.InvalidOption: "top_k: Input should be less than or equal to 100. See /docs for the options there are.",
    errors.ModelUnavailable: "The model of classify does not load. Tell the operator, or try later.",
    errors.InternalError: errors.InternalError.SENTENCE,
    errors.BrokerUnavailable: errors.BrokerUnavailable.SENTENCE,
}


def problems(*kinds: type[AppError]) -> Responses:
    """The error answers of a call; errors that share a status become examples of one answer."""
    responses: Responses = {}
    always: tuple[type[AppError], ...] = (errors.BrokerUnavailable, errors.InternalError)
    for kind in (*kinds, *always):
        of_job = kind in (errors.JobFailed, errors.JobCancelled)
        response = responses.setdefault(kind.http_status, {"description": kind.title, "content": {PROBLEM_JSON: {}}})
        content = response["content"][PROBLEM_JSON]
        content["schema"] = {"$ref": f"#/components/schemas/{(JobProblem if of_job else Problem).__name__}"}
        content.setdefault("examples", {})[kind.code] = {"value": _example_of(_problem(kind, of_job=of_job))}
        if kind.retry_after_s is not None:
            response["headers"] = {"Retry-After": header("Seconds.", "integer")}
    return responses


def _problem(kind: type[AppError], *, of_job: bool) -> dict[str, Any]:
    problem = Problem(
        title=kind.title, status=kind.http_status, detail=_DETAILS[kind], code=kind.code, retryable=kind.retryable
    ).model_dump()
    if not of_job:
        return problem
    damaged = {"code": "invalid_image", "message": "The picture is damaged. Send an intact one.", "retryable": False}
    return {**problem, "job_id": JOB_ID, "error": damaged if kind is errors.JobFailed else None}


#: Stands for null in an example until the document is made: FastAPI leaves members that are null out.
_NULL = "\0null"


def with_nulls(document: Any, *, null: Any = None, stand_in: Any = _NULL) -> Any:
    """A document in which what stands for null is null; or the other way round."""
    if isinstance(document, dict):
        return {name: with_nulls(value, null=null, stand_in=stand_in) for name, value in document.items()}
    if isinstance(document, list):
        return [with_nulls(value, null=null, stand_in=stand_in) for value in document]
    return null if document == stand_in else document


def _example_of(value: dict[str, Any]) -> Any:
    return with_nulls(value, null=_NULL, stand_in=None)


def answer(description: str, example: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A JSON answer with an example; `more` are further members of the response object."""
    return {"description": description, "content": {"application/json": {"example": _example_of(example)}}, **more}


@cache
def result_schema(task: Task[Any]) -> type[ResultDocument]:
    """The result document of a task: what all results have, and the task's own fields."""
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in task.answer.model_fields.items()}
    return create_model(f"{task.name.capitalize()}Result", __base__=ResultDocument, **fields)


def results(tasks: tuple[Task[Any], ...]) -> dict[str, Any]:
    """The 200 of the calls that give a result: the schemas of the tasks' results, and an example of each."""
    content = {
        "schema": {"anyOf": [{"$ref": f"#/components/schemas/{result_schema(task).__name__}"} for task in tasks]},
        "examples": {
            task.name: {"value": _example_of({"task": task.name, **task.example, **_RESULT_FIELDS})} for task in tasks
        },
    }
    return {
        "description": "The result; beside the common fields, the task's own.",
        "content": {"application/json": content},
    }


def header(description: str, kind: str = "string") -> dict[str, Any]:
    """A header of an answer."""
    return {"description": description, "schema": {"type": kind}}


def submission(task: Task[Any], settings: Settings) -> dict[str, Any]:
    """What a submission sends: a multipart body, and perhaps a preference."""
    models = [public_name(model) for model in task.models(settings)]
    options = task.options.model_json_schema()
    properties = {
        "file": {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."},
        **options.get("properties", {}),
        "model": {"type": "string", "enum": models, "default": models[0]},
        "priority": {"type": "string", "enum": [name.lower() for name in Priority.__members__], "default": "normal"},
    }
    schema = {"type": "object", "required": ["file"], "properties": properties}
    prefer = {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=n`: answer with the result if it comes within n seconds (RFC 7240).",
        "schema": {"type": "string"},
        "example": "wait=10",
    }
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return {"parameters": [prefer], "requestBody": body}
