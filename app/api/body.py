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


def content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    """The media type of the body in lower case, and its parameters."""
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    return kind.decode("latin-1"), parameters


def said_length(request: Request) -> int:
    """How many bytes the client says that it sends; 0 where it does not say, and very many beyond what can be read."""
    return int(request.headers.get("content-length", "").lstrip("0")[:_DIGITS] or 0)


class Chunks(AsyncIterator[bytes]):
    """The body, piece by piece. Raises `FileTooLarge`, before the first piece where the client says the length.

    Raises `BadRequest` for a body that is compressed, and for a client that has fallen silent.
    """

    def __init__(self, request: Request, *, max_bytes: int) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._received_bytes = 0
        self._begun = False
        self._more = True

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begin()
        while self._more:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    message = await self._request.receive()
            except TimeoutError:
                raise BadRequest(f"Nothing came for {_SILENCE_S} s. Send the request again.") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            self._more = message.get("more_body", False)
            self._received_bytes += len(chunk)
            self._check(self._received_bytes)
            if chunk:
                return chunk
            del chunk, message  # not to be held until the next comes
        raise StopAsyncIteration

    def _begin(self) -> None:
        self._begun = True
        if self._request.headers.get("content-encoding", "identity").lower() != "identity":
            raise BadRequest("The body is compressed. Send it as it is, without a Content-Encoding.")
        self._check(said_length(self._request))

    def _check(self, length: int) -> None:
        if length > self._max_bytes:
            raise FileTooLarge(f"The request is longer than {self._max_bytes} bytes. Send less.")
