"""A submission as JSON: `{"image": "data:image/jpeg;base64,…"}` or `{"url": "https://…"}`, the options beside it."""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from app.errors import BadRequest, InvalidOption
from app.storage import IncomingUpload

_HOW = "Send an object with either 'image', a data URI, or 'url', and the options beside it."
#: RFC 2397. The media type it claims does not matter: the content decides.
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_WHITE_SPACE = str.maketrans("", "", " \t\r\n")
#: As much of a wrong name as is said back.
_MAX_ECHO = 40


@dataclass(frozen=True)
class Submission:
    """What the object holds, but for the picture's bytes."""

    options: dict[str, Any]
    url: str | None


def read(path: Path, upload: IncomingUpload) -> Submission:
    """Read a file of JSON; an image in it goes to `upload`.

    Raises `BadRequest` for what is no such object, `InvalidOption` for a name that comes twice, `FileTooLarge`.
    """
    try:
        options = json.loads(path.read_bytes(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadRequest(f"The body is not well-formed JSON. {_HOW}") from None
    if not isinstance(options, dict) or ("image" in options) == ("url" in options):
        raise BadRequest(_HOW)
    if "url" in options:
        url = options.pop("url")
        if not isinstance(url, str):
            raise BadRequest(f"'url' is not a text. {_HOW}")
        return Submission(options, url)
    upload.write(_decode(options.pop("image")))
    return Submission(options, None)


def _decode(image: object) -> bytes:
    start = _DATA_URI.match(image) if isinstance(image, str) else None
    if start is None or not isinstance(image, str):
        raise BadRequest("'image' is no data URI in base64. Begin it with 'data:image/jpeg;base64,'.")
    try:
        # Many encoders break their lines.
        return base64.b64decode(image[start.end() :].translate(_WHITE_SPACE), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("'image' is not well-formed base64 (RFC 4648). Encode it anew.") from None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise InvalidOption(f"The option {name[:_MAX_ECHO]!r} is given twice. Give it once.")
        members[name] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
