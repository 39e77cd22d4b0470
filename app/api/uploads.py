"""A multipart body, read as it comes in: the file to disk, the options to memory, within bounds.

Source of the format: RFC 7578. The whole body is never held; what is over its limit is refused at the first byte too
many, or before any when the client says its length.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.errors import BadRequest, FileTooLarge, InvalidOption
from app.storage import IncomingUpload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

#: Beside the file, a body holds its boundaries, its headers and a few short options.
_FORM_ALLOWANCE_BYTES = 64 * 1024
_MAX_FIELDS = 32
#: A client that is silent for so long in the middle of a body has gone.
_SILENCE_S = 30
_MAX_NAME = 64
_MAX_FILENAME = 255
_HOW = "Send multipart/form-data with one part named 'file' and the options as fields beside it."


@dataclass
class Form:
    """What came beside the bytes of the file."""

    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


async def receive(request: Request, upload: IncomingUpload, *, max_bytes: int) -> Form:
    """Stream the request's file into `upload` and return the rest of the form.

    Raises `BadRequest` for another content type or a broken body, `FileTooLarge`, and `InvalidOption` for a field that
    is given twice.
    """
    _check_length(request.headers.get("content-length"), max_bytes=max_bytes)
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise BadRequest(_HOW)
    reader = _FormReader(upload)
    try:
        parser = MultipartParser(parameters[b"boundary"], reader.callbacks())
        async for chunk in _chunks(request, max_bytes=max_bytes + _FORM_ALLOWANCE_BYTES):
            parser.write(chunk)
    except FormParserError:
        raise BadRequest(f"The body is not well-formed multipart/form-data. {_HOW}") from None
    return reader.finish()


def _check_length(content_length: str | None, *, max_bytes: int) -> None:
    if content_length and int(content_length) > max_bytes + _FORM_ALLOWANCE_BYTES:
        raise FileTooLarge(f"The file is larger than {max_bytes} bytes. Send a smaller one.")


async def _chunks(request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes: no longer than it may be, wherever it puts its bytes, and without long silences."""
    stream, received = request.stream(), 0
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise BadRequest(f"Nothing came for {_SILENCE_S} s. Send the request again.") from None
        if chunk is None:
            return
        received += len(chunk)
        if received > max_bytes:
            raise FileTooLarge(f"The request is longer than {max_bytes} bytes. Send a smaller file.")
        yield chunk


class _FormReader:
    """Receives the parser's callbacks, part by part."""

    def __init__(self, upload: IncomingUpload) -> None:
        self._upload = upload
        self._form = Form()
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._name = ""
        self._field = b""
        self._field_bytes = 0
        self._files = 0
        self._ended = False

    def callbacks(self) -> "MultipartCallbacks":
        """The functions the parser calls, by its names for them."""
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def finish(self) -> Form:
        """The form, once the body has been read to its end."""
        if not self._ended:
            raise BadRequest(f"The body ends in the middle of a part. {_HOW}")
        if not self._files:
            raise BadRequest(f"There is no file in the request. {_HOW}")
        return self._form

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = parameters.get(b"name", b"").decode(errors="replace")[:_MAX_NAME]
        self._field = b""
        if self._name == "file":
            self._files += 1
            if self._files > 1:
                raise BadRequest("There is more than one file in the request. Send one for each job.")
            self._form.filename = _clean(parameters.get(b"filename", b""))
        elif b"filename" in parameters:
            raise BadRequest(f"A file came as {self._name!r}. Name its part 'file'.")
        elif self._name in self._form.fields:
            raise InvalidOption(f"The option {self._name!r} is given twice. Give it once.")
        elif len(self._form.fields) >= _MAX_FIELDS:
            raise BadRequest(f"There are more than {_MAX_FIELDS} fields in the request. {_HOW}")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._upload.write(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > _FORM_ALLOWANCE_BYTES:
            raise BadRequest(f"The fields beside the file are longer than {_FORM_ALLOWANCE_BYTES} bytes. {_HOW}")
        self._field += data[start:end]

    def _on_part_end(self) -> None:
        if self._name != "file":
            self._form.fields[self._name] = self._field.decode(errors="replace")

    def _on_end(self) -> None:
        self._ended = True


def _clean(filename: bytes) -> str | None:
    """The client's name for the file, without folders or control characters; None when there is none."""
    name = filename.decode(errors="replace").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable())[:_MAX_FILENAME] or None
