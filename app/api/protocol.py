"""uvicorn's fast HTTP protocol, with the bounds that it lacks on what is no body: bytes, and the time they take."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD_BYTES = 64 * 1024
_HEAD_WITHIN_S = 30
#: As much as is read from a connection at once. To stop reading and begin again costs more than to hold it.
_MAX_WAITING_BYTES = 256 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request head, or whatever else yields no body, is too long or does not come."""

    _fruitless_bytes = 0
    _fruitful = False
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the head of the first request; later ones are bounded by the keep-alive timeout."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_HEAD_WITHIN_S, self._close_if_headless)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes without ending a head or adding to a body; the parser would gather it without limit."""
        self._fruitful = False
        super().data_received(data)
        self._fruitless_bytes = 0 if self._fruitful else self._fruitless_bytes + len(data)
        if self._fruitless_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The request's head is longer than {_MAX_HEAD_BYTES} bytes.")

    def shutdown(self) -> None:
        """Close the connection with its last answer, at once if it is idle; a request whose head comes is answered."""
        if not self._in_head:
            super().shutdown()

    def on_message_begin(self) -> None:
        """A head has begun."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._in_head = False
        self._fruitful = True
        self._deadline.cancel()
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = _HeadWithBody(self.transport, self.loop)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """A body has grown. It is not read on where nobody takes it, but a picture of usual size may come at once."""
        self._fruitful = True
        cycle = self.cycle
        if len(cycle.body) + len(body) > _MAX_WAITING_BYTES or cycle.response_complete or self.parser.should_upgrade():
            super().on_body(body)
        else:
            # Bytes, where uvicorn has them copied to an array and back: what comes in one piece is handed on as it is.
            cycle.body = cycle.body + body if cycle.body else body  # type: ignore[assignment]
            cycle.message_event.set()

    def _close_if_headless(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _HeadWithBody:
    """A transport as an answer uses it: what is written first waits for what comes at once, and goes in one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        #: None once it has gone.
        self._head: bytes | None = b""

    def write(self, data: bytes) -> None:
        """Send, or hold until the loop comes round."""
        if self._head is None:
            self._transport.write(data)
        elif self._head:
            self._transport.write(self._head + data)
            self._head = None
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close, once all has been sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None
