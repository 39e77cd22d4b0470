"""What the OpenAPI document says of answers and bodies that FastAPI cannot read off a signature."""

from functools import cache
from typing import Any

from pydantic import create_model

from app import errors
from app.api import claims
from app.api.errors import PROBLEM_JSON
from app.api.examples import DETAILS, IN_JSON, JOB_ID, result_of
from app.config import Settings, public_name
from app.errors import AppError
from app.priority import Priority
from app.schemas import JobProblem, Problem, ResultDocument
from app.tasks.base import Task

Responses = dict[int | str, dict[str, Any]]


def problems(*kinds: type[AppError]) -> Responses:
    """The error answers of a call; errors that share a status become examples of one answer."""
    responses: Responses = {}
    always: tuple[type[AppError], ...] = (errors.BrokerUnavailable, errors.ServiceStopping, errors.InternalError)
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
        title=kind.title, status=kind.http_status, detail=DETAILS[kind], code=kind.code, retryable=kind.retryable
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


def without_validation_errors(document: dict[str, Any]) -> dict[str, Any]:
    """A document without the answers that FastAPI adds on its own to calls with parameters: ours are all described."""
    for calls in document["paths"].values():
        for call in calls.values():
            if "HTTPValidationError" in str(call["responses"].get("422")):
                del call["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


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
        "examples": {task.name: {"value": _example_of(result_of(task.name, task.example))} for task in tasks},
    }
    return {
        "description": "The result; beside the common fields, the task's own.",
        "content": {"application/json": content},
    }


def header(description: str, kind: str = "string") -> dict[str, Any]:
    """A header of an answer."""
    return {"description": description, "schema": {"type": kind}}


#: Of an answer to a request that was sent again.
REPLAYED = {"Idempotency-Replayed": header("`true`: this is the answer to an earlier request with the same key.")}


def submission(task: Task[Any], settings: Settings) -> dict[str, Any]:
    """What a submission sends: a form or JSON, and perhaps how it is to be taken."""
    options = _options(task, settings)
    described = {"type": "string", "format": "binary", "description": f"{_FORMATS}, told by the content."}
    form = {"type": "object", "required": ["file"], "properties": {"file": described, **options}}
    uri = {"type": "string", "description": "A data URI in base64 (RFC 2397)."}
    url = {"type": "string", "description": "Where a worker fetches the picture, if `ALLOW_URLS` is set."}
    json = {
        "type": "object",
        "properties": {"image": uri, "url": url, **options},
        "oneOf": [{"required": ["image"]}, {"required": ["url"]}],
    }
    prefer = {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=n`: answer with the result if it comes within n seconds (RFC 7240).",
        "schema": {"type": "string"},
        "example": "wait=10",
    }
    content = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": json, "examples": {name: {"value": value} for name, value in IN_JSON.items()}},
    }
    return {
        "parameters": [prefer, *_HOW_TO_TAKE_IT],
        "requestBody": {"required": True, "content": content},
    }


def batch_submission(task: Task[Any], settings: Settings) -> dict[str, Any]:
    """What a submission of many files sends."""
    files = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "maxItems": settings.max_batch_files,
        "description": f"{_FORMATS}: a part named `file` for each.",
    }
    schema = {"type": "object", "required": ["file"], "properties": {"file": files, **_options(task, settings)}}
    return {
        "parameters": _HOW_TO_TAKE_IT,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
    }


_HOW_TO_TAKE_IT = [
    {
        "name": claims.HEADER,
        "in": "header",
        "description": "Makes it safe to send the request again: it is carried out once, and answered as the first "
        "time. A new one for each request.",
        "schema": {"type": "string", "minLength": 1, "maxLength": claims.MAX_LENGTH},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    },
    {
        "name": "Cache-Control",
        "in": "header",
        "description": "`no-cache`: do not answer from an identical job, earlier or at the same time (RFC 9111).",
        "schema": {"type": "string"},
        "example": "no-cache",
    },
]
_FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"


def _options(task: Task[Any], settings: Settings) -> dict[str, Any]:
    """The task's options, and those that every task takes."""
    models = [public_name(model) for model in task.models(settings)]
    schema = task.options.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        **schema.get("properties", {}),
        "model": {
            "type": "string",
            "enum": models,
            "default": models[0],
            "description": "Which of the task's models is to do it.",
        },
        "priority": {
            "type": "string",
            "enum": [name.lower() for name in Priority.__members__],
            "default": "normal",
            "description": "Jobs of `high` priority are served before all others.",
        },
    }
