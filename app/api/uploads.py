"""The ways in: a picture as part of a form, as a data URI in JSON, or as a URL that the worker will fetch.

A body is streamed to disk and never held whole, but for short pictures, as long as they are not very many, and for
JSON, which is read back from there: few at a time. So memory stays bounded however many clients send, and however
slowly.
"""

from dataclasses import dataclass, field
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from app.api import body, json_body
from app.api.body import content_type
from app.api.multipart import FORM_ALLOWANCE_BYTES, Sink, read_form
from app.config import Settings
from app.errors import BadRequest
from app.incoming import IncomingUpload
from app.storage import Storage

_HOW = (
    "Send multipart/form-data with the picture as a part named 'file', or application/json with either 'image', "
    "a data URI, or 'url'."
)
_JSON_AT_ONCE = CapacityLimiter(2)
#: Larger pictures are for forms, whatever `MAX_FILE_SIZE` allows: JSON is held in memory several times over.
_MAX_JSON_IMAGE_BYTES = 64 * 2**20


@dataclass
class Received:
    """A submission as it came, but for the picture's bytes."""

    filename: str | None = None
    #: Options by name, not validated yet.
    options: dict[str, Any] = field(default_factory=dict)
    #: Where the picture is to be fetched; None when it came along.
    url: str | None = None


async def receive(request: Request, upload: IncomingUpload, *, storage: Storage, settings: Settings) -> Received:
    """Take in one submission, its picture into `upload`.

    Raises `BadRequest` for another content type or a broken body, `FileTooLarge`, and `InvalidOption` for a name that
    is given twice in JSON.
    """
    kind, parameters = content_type(request)
    if kind == "multipart/form-data":
        return await _receive_form(request, parameters.get(b"boundary"), upload, max_bytes=settings.max_file_size)
    if kind == "application/json":
        return await _receive_json(request, upload, storage, max_bytes=settings.max_file_size)
    raise BadRequest(_HOW)


async def _receive_form(
    request: Request, boundary: bytes | None, upload: IncomingUpload, *, max_bytes: int
) -> Received:
    received, files = Received(), 0

    def new_file(filename: str | None) -> Sink:
        nonlocal files
        files += 1
        if files > 1:
            raise BadRequest("There is more than one file in the request. Send one for each job, or use /batches.")
        received.filename = filename
        return upload

    pieces = body.Chunks(request, max_bytes=max_bytes + FORM_ALLOWANCE_BYTES)
    received.options = {**await read_form(boundary, pieces, new_file)}
    return received


async def _receive_json(request: Request, upload: IncomingUpload, storage: Storage, *, max_bytes: int) -> Received:
    # Base64 makes four characters of three bytes (RFC 4648).
    longest = -(-min(max_bytes, _MAX_JSON_IMAGE_BYTES) // 3) * 4 + FORM_ALLOWANCE_BYTES
    with storage.incoming(upload.job_id, max_bytes=longest) as spool:
        async for piece in body.Chunks(request, max_bytes=longest):
            spool.write(piece)
        spool.finish()
        submission = await to_thread.run_sync(json_body.read, spool.path, upload, limiter=_JSON_AT_ONCE)
    return Received(options=submission.options, url=submission.url)
