"""A multipart body, read as it comes in: files to wherever they are to go, fields to memory, within bounds.

Source of the format: RFC 7578.
"""

import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import BadRequest
from app.filenames import display_name

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

#: Beside files, a body holds its boundaries, its headers and a few short options.
FORM_ALLOWANCE_BYTES = 64 * 1024
#: By name: a value, or those that came for the same name, in their order.
Fields = dict[str, str | list[str]]
_MAX_FIELDS = 32
_MAX_NAME = 64
#: The parser's limit.
_MAX_BOUNDARY = 256
_HOW = "Send multipart/form-data with the picture as a part named 'file' and the options as fields beside it."


class Sink(Protocol):
    """Where the bytes of a file go."""

    def write(self, chunk: memoryview) -> None:
        """Take some more, which is good for this call alone."""

    def finish(self) -> None:
        """There are no more."""


async def read_form(
    boundary: bytes | None, chunks: AsyncIterator[bytes], new_file: Callable[[str | None], Sink]
) -> Fields:
    """Read a body to its end. `new_file` is told what the client calls each file; what it raises ends the reading.

    Raises `BadRequest` for a body that has no boundary, is broken, holds no file, or holds too much beside them.
    """
    if not boundary:
        raise BadRequest(_HOW)
    first = await anext(chunks, b"")
    if _take_only_file(boundary, first, new_file):
        del first  # it may be long, and nothing bounds the time that the rest takes
        async for _ in chunks:  # what follows the end does not matter
            pass
        return {}
    reader = _Reader(new_file)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(first)
        del first
        async for chunk in chunks:
            parser.write(chunk)
    except FormParserError:
        raise BadRequest(f"The body is not well-formed multipart/form-data. {_HOW}") from None
    return reader.finish()


def _take_only_file(boundary: bytes, body: bytes, new_file: Callable[[str | None], Sink]) -> bool:
    """Whether the body is of the plainest form; its file has been taken then."""
    found = _only_file(boundary, body)
    if found is None:
        return False
    name, content = found
    file = new_file(display_name(name))
    file.write(content)
    file.finish()
    return True


def _only_file(boundary: bytes, body: bytes) -> tuple[str, memoryview] | None:
    """Name and content of the file in a body of the plainest form, which most have: one file and no fields.

    Takes nothing that the parser would refuse, or the answer would depend on how the body was cut into pieces.
    """
    if len(boundary) > _MAX_BOUNDARY:
        return None
    opening, closing = b"--" + boundary + b"\r\n", b"\r\n--" + boundary
    head = _PLAIN_HEAD.match(body, len(opening)) if body.startswith(opening) else None
    if head is None:
        return None
    end = body.find(closing, head.end())
    if end < 0 or body[end + len(closing) :] not in (b"--", b"--\r\n"):
        return None
    return head[1].decode("ascii"), memoryview(body)[head.end() : end]


#: The headers of a file's part, as browsers and curl write them where nothing in the name needs any thought; shorter
#: than the parser's limit.
_PLAIN_HEAD = re.compile(
    rb'Content-Disposition: form-data; name="file"; filename="([ !#$&-:<-\[\]-~]{0,1024})"\r\n'
    rb"(?:Content-Type: [ -~]{0,1024}\r\n)?\r\n"
)


class _Reader:
    """Receives the parser's callbacks, part by part."""

    def __init__(self, new_file: Callable[[str | None], Sink]) -> None:
        self._new_file = new_file
        self._fields: dict[str, list[str]] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._name = ""
        self._field = b""
        self._field_bytes = 0
        self._file: Sink | None = None
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

    def finish(self) -> Fields:
        """The fields, once the body has been read to its end."""
        if not self._ended:
            raise BadRequest(f"The body ends in the middle of a part. {_HOW}")
        if not self._files:
            raise BadRequest(f"There is no file in the request. {_HOW}")
        return {name: values if len(values) > 1 else values[0] for name, values in self._fields.items()}

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
        self._field, self._file = b"", None
        if self._name == "file":
            self._file = self._new_file(display_name(parameters.get(b"filename", b"").decode(errors="replace")))
            self._files += 1
        elif b"filename" in parameters:
            raise BadRequest(f"A file came as {self._name!r}. Name its part 'file'.")
        elif sum(len(values) for values in self._fields.values()) >= _MAX_FIELDS:
            raise BadRequest(f"There are more than {_MAX_FIELDS} fields in the request. {_HOW}")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > FORM_ALLOWANCE_BYTES:
            raise BadRequest(f"The fields beside the file are longer than {FORM_ALLOWANCE_BYTES} bytes. {_HOW}")
        self._field += data[start:end]

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._file.finish()
        else:
            self._fields.setdefault(self._name, []).append(self._field.decode(errors="replace"))

    def _on_end(self) -> None:
        self._ended = True
