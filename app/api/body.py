"""A request's body as it comes: no longer than it may be, and without long silences."""

import asyncio
from collections.abc import AsyncIterator

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.errors import BadRequest, FileTooLarge

#: A client that is silent for so long in the middle of a body has gone.
_SILENCE_S = 30
#: Python refuses to read numbers of thousands of digits.
_DIGITS = 18


def content_type(request: Request) -> tuple[str, str]:
    """The media type of the body in lower case, and the whole header."""
    header = request.headers.get("content-type", "")
    return parse_options_header(header)[0].decode("latin-1"), header


def said_length(request: Request) -> int:
    """How many bytes the client says that it sends; 0 where it does not say, and very many beyond what can be read."""
    return int(request.headers.get("content-length", "").lstrip("0")[:_DIGITS] or 0)


async def chunks(request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
    """The body, piece by piece. Raises `FileTooLarge`, before the first piece where the client says the length.

    Raises `BadRequest` for a body that is compressed, and for a client that has fallen silent.
    """
    too_long = FileTooLarge(f"The request is longer than {max_bytes} bytes. Send less.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest("The body is compressed. Send it as it is, without a Content-Encoding.")
    if said_length(request) > max_bytes:
        raise too_long
    received, more = 0, True
    while more:
        try:
            async with asyncio.timeout(_SILENCE_S):
                message = await request.receive()
        except TimeoutError:
            raise BadRequest(f"Nothing came for {_SILENCE_S} s. Send the request again.") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        if received > max_bytes:
            raise too_long
        if chunk:
            yield chunk
        del chunk, message  # not to be held until the next comes
