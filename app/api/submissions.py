"""What submissions of one picture and of many have in common: what is asked for, and what becomes of a file."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import Headers

from app import imaging
from app.announcements import ServedModel
from app.api.deps import Service
from app.api.errors import MAX_ECHO, describe_validation
from app.config import public_name
from app.errors import InvalidOption
from app.jobs import Picture, Work
from app.priority import Priority
from app.registry import ImageFacts
from app.storage import IncomingUpload
from app.tasks.base import Options, Task


async def work_asked(options: dict[str, Any], task: Task[Any], service: Service, *, fresh: bool) -> Work:
    """What the options ask for; a `fresh` answer is one that no other job has.

    Raises `InvalidOption`, or `ModelUnavailable` when nobody can do it.
    """
    fields = {name: _single(task, name, value) for name, value in options.items()}
    models = [public_name(model) for model in task.models(service.settings)]
    priorities = {priority.name.lower(): priority for priority in Priority}
    model = one_of(models, fields.pop("model"), option="model") if "model" in fields else None
    priority = priorities[one_of(priorities, fields.pop("priority", "normal"), option="priority")]
    try:
        validated = task.options.model_validate(fields, context=service.settings)
    except ValidationError as invalid:
        raise InvalidOption(describe_validation(invalid.errors())) from None
    name = model or models[0]
    served = (await service.availability.models(task.name)).get(name, ServedModel())
    task.check(validated, served.labels)
    return Work(
        task=task,
        model=model,
        options=validated,
        priority=priority,
        model_is=f"{name}@{served.revision}" if task.shareable and served.revision and not fresh else None,
    )


def wants_fresh(headers: Headers) -> bool:
    """Whether the answer of another job will not do (RFC 9111, 5.2.1.4)."""
    return "no-cache" in {directive.strip().lower() for directive in headers.get("cache-control", "").split(",")}


def probe_and_keep(upload: IncomingUpload, filename: str | None, *, max_pixels: int) -> Picture:
    """Put a received file in its place if it is a sound image. Raises as `imaging.probe` does."""
    info = imaging.probe(upload.path, max_pixels=max_pixels)
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
