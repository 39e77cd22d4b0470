"""A submission as JSON: `{"image": "data:image/jpeg;base64,…"}` or `{"url": "https://…"}`, the options beside it.

The image is cut out of the bytes before they are parsed, and what is left is bounded as the fields of a form are: no
client can make a parser build millions of values.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from app.api.errors import MAX_ECHO
from app.api.multipart import FORM_ALLOWANCE_BYTES
from app.errors import BadRequest, InvalidOption
from app.incoming import IncomingUpload

_HOW = "Send an object with either 'image', a data URI, or 'url', and the options beside it."
_NO_URI = "'image' is no data URI in base64. Begin it with 'data:image/jpeg;base64,'."
_TOO_MUCH = f"The object holds more than {FORM_ALLOWANCE_BYTES} bytes beside the image. {_HOW}"
#: A member with a data URI in base64 (RFC 2397). The media type it claims does not matter: the content decides. Some
#: encoders of JSON escape slashes.
_IMAGE = re.compile(rb'"image"\s*:\s*"(data:(?:[^",\\]|\\/){0,200};base64,([^"]*))"', re.IGNORECASE)
#: Stands for the URI when the rest is parsed.
_CUT = "data:;base64,"
#: Many encoders of base64 break their lines.
_ESCAPED = re.compile(rb"\\[/nrt]|[ \t]")


@dataclass(frozen=True)
class Submission:
    """What the object holds, but for the picture's bytes."""

    options: dict[str, Any]
    url: str | None


def read(path: Path, upload: IncomingUpload) -> Submission:
    """Read a file of JSON; an image in it goes to `upload`.

    Raises `BadRequest` for what is no such object, `InvalidOption` for a name that comes twice, `FileTooLarge`.
    """
    body = path.read_bytes()
    found = _IMAGE.search(body)
    rest = body if found is None else body[: found.start(1)] + _CUT.encode() + body[found.end(1) :]
    if len(rest) > FORM_ALLOWANCE_BYTES:
        raise BadRequest(_TOO_MUCH if found else f"{_NO_URI} {_TOO_MUCH}")
    options = _parse(rest)
    if ("image" in options) == ("url" in options):
        raise BadRequest(_HOW)
    if "url" in options:
        url = options.pop("url")
        if not isinstance(url, str):
            raise BadRequest(f"'url' is not a text. {_HOW}")
        return Submission(options, url)
    if found is None or options.pop("image") != _CUT:
        raise BadRequest(_NO_URI)
    upload.write(_decode(found[2]))
    return Submission(options, None)


def _parse(rest: bytes) -> dict[str, Any]:
    try:
        options = json.loads(rest, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadRequest(f"The body is not well-formed JSON. {_HOW}") from None
    if not isinstance(options, dict):
        raise BadRequest(_HOW)
    return options


def _decode(escaped: bytes) -> bytes:
    data = _ESCAPED.sub(lambda match: b"/" if match[0] == rb"\/" else b"", escaped)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("'image' is not well-formed base64 (RFC 4648). Encode it anew.") from None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise InvalidOption(f"The option {name[:MAX_ECHO]!r} is given twice. Give it once.")
        members[name] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
