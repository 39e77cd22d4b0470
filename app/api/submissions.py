"""What submissions of one picture and of many have in common: what is asked for, and what becomes of a file."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from types import TracebackType
from typing import Any

from pydantic import ValidationError
from redis.exceptions import ResponseError
from starlette.datastructures import Headers
from starlette.requests import Request

from app import imaging
from app.announcements import ServedModel
from app.api import body
from app.api.deps import Service
from app.api.errors import MAX_ECHO, describe_validation
from app.config import Settings, public_name
from app.errors import AppError, InvalidOption
from app.idempotency import Claimed
from app.incoming import IncomingUpload
from app.jobs import Picture, Work
from app.priority import Priority
from app.registry import ImageFacts
from app.storage import Storage, removed
from app.tasks.base import Options, Task

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


def check_room(request: Request, service: Service, *, max_bytes: int) -> None:
    """Raises `DiskFull` for a request that the disk has no room for, before its body is read."""
    more_bytes = min(body.said_length(request), max_bytes)
    service.storage.check_room(more_bytes, leave_bytes=service.settings.min_free_disk)


def work_asked(options: dict[str, Any], task: Task[Any], settings: Settings) -> Work:
    """What the options ask for. Raises `InvalidOption`."""
    fields = {name: _single(task, name, value) for name, value in options.items()}
    model = _model_asked(fields.pop("model"), task, settings) if "model" in fields else None
    priority = _PRIORITIES[one_of(_PRIORITIES, fields.pop("priority", "normal"), option="priority")]
    try:
        validated = task.options.model_validate(fields, context=settings)
    except ValidationError as invalid:
        raise InvalidOption(describe_validation(invalid.errors())) from None
    return Work(task=task, model=model, options=validated, priority=priority)


def _model_asked(name: object, task: Task[Any], settings: Settings) -> str:
    return one_of([public_name(model) for model in task.models(settings)], name, option="model")


async def offered(work: Work, service: Service, *, fresh: bool) -> Work:
    """The work with the model that is to do it, unless a `fresh` answer is wanted, which no other job has.

    Raises `ModelUnavailable` when nobody can do it, and `InvalidOption` for options that are not for this model.
    """
    task = work.task
    name = work.model or public_name(task.models(service.settings)[0])
    served = (await service.availability.models(task.name)).get(name, ServedModel())
    task.check(work.options, served.labels)
    shared = task.shareable and served.revision and not fresh
    return replace(work, model_is=f"{name}@{served.revision}" if shared else None)


class KeptIfAccepted:
    """Removes pictures whose jobs are refused.

    After any other error the jobs may be there, and need them; if not, the sweeper takes them.
    """

    def __init__(self, storage: Storage, pictures: Iterable[Picture]) -> None:
        self._storage = storage
        self._pictures = pictures

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, AppError | Claimed | ResponseError):
            discard(self._storage, self._pictures)


def discard(storage: Storage, pictures: Iterable[Picture]) -> None:
    """Remove pictures that nobody will work on."""
    for picture in pictures:
        removed(partial(storage.remove, picture.path))


def wants_fresh(headers: Headers) -> bool:
    """Whether the answer of another job will not do (RFC 9111, 5.2.1.4)."""
    directives = ",".join(headers.getlist("cache-control")).split(",")
    return "no-cache" in {directive.strip().lower() for directive in directives}


def probe_and_keep(upload: IncomingUpload, filename: str | None, *, max_pixels: int) -> Picture:
    """Put a received file in its place if it is a sound image. Raises as `imaging.probe` does."""
    return _kept(upload, filename, imaging.probe(upload.content, max_pixels=max_pixels))


def kept_at_once(upload: IncomingUpload, filename: str | None, *, max_pixels: int) -> Picture | None:
    """As `probe_and_keep`, for a short file of a common kind; None for what takes longer, or is to be refused."""
    content = upload.content
    info = imaging.probe_at_once(content, max_pixels=max_pixels) if isinstance(content, bytes) else None
    return None if info is None else _kept(upload, filename, info)


def _kept(upload: IncomingUpload, filename: str | None, info: imaging.ImageInfo) -> Picture:
    facts = ImageFacts(
        width=info.width, height=info.height, format=info.format, bytes=upload.bytes, sha256=upload.sha256
    )
    return Picture(path=upload.keep(imaging.EXTENSIONS[info.format]), filename=filename, facts=facts)


def _single(task: Task[Any], name: str, value: Any) -> Any:
    """A value as it came. A form may give several only to an option that takes a list."""
    if isinstance(value, list) and name not in _lists(task.options):
        raise InvalidOption(f"The option {name[:MAX_ECHO]!r} is given more than one value. Give it one.")
    return value


@cache
def _lists(options: type[Options]) -> frozenset[str]:
    """The options that take a list."""

    def takes_list(schema: dict[str, Any]) -> bool:
        return any(part.get("type") == "array" for part in (schema, *schema.get("anyOf", ())))

    properties = options.model_json_schema().get("properties", {})
    return frozenset(name for name, schema in properties.items() if takes_list(schema))


def one_of(choices: Iterable[str], asked: object, *, option: str) -> str:
    """What was asked for, if it is there to be chosen. Raises `InvalidOption`."""
    if not isinstance(asked, str) or asked not in choices:
        raise InvalidOption(f"{option}: {str(asked)[:MAX_ECHO]!r} is not one of: {', '.join(choices)}.")
    return asked
