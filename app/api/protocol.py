"""uvicorn's fast HTTP protocol, with the bounds that it lacks on what is no body: bytes, and the time they take."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD_BYTES = 64 * 1024
_HEAD_WITHIN_S = 30
#: As much as is read ahead of a picture's body. To stop reading and begin again costs more than to hold it.
_MAX_WAITING_BYTES = 256 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request head, or whatever else yields no body, is too long or does not come."""

    _fruitless_bytes = 0
    _fruitful = False
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the head of the first request; later ones are bounded by the keep-alive timeout."""
        super().connection_made(transport)
        self._answers = _HeadWithBody(transport, self.loop)
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
            self._answers.flush()
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection after its last answer."""
        self._answers.flush()
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Close the connection after its last answer, and with this one."""
        self._answers.flush()
        super().send_400_response(msg)

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
            self._answers.expect_head()
            self.cycle.transport = self._answers  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """A body has grown. It is not read on where nobody takes it, but a picture of usual size may come at once."""
        self._fruitful = True
        if self.parser.should_upgrade() or self.scope["method"] != "POST":
            super().on_body(body)
            return
        cycle = self.cycle
        if cycle.response_complete:
            return
        # Bytes, where uvicorn has them copied to an array and back: what comes in one piece is handed on as it is.
        # Of more pieces an array is made, for bytes would be copied whole for each.
        if not cycle.body:
            cycle.body = body  # type: ignore[assignment]
        elif isinstance(cycle.body, bytearray):
            cycle.body += body
        else:
            cycle.body = bytearray(cycle.body) + body
        if len(cycle.body) > _MAX_WAITING_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def _close_if_headless(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _HeadWithBody:
    """A transport as answers use it: what each writes first waits for what comes at once, and goes in one packet.

    What is written beside it must be preceded by a `flush`.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._expecting = False
        self._head = b""

    def expect_head(self) -> None:
        """There will be one more answer."""
        self._expecting = True

    def write(self, data: bytes) -> None:
        """Send, or hold until the loop comes round."""
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif self._expecting:
            self._expecting = False
            self._head = data
            self._loop.call_soon(self.flush)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close, once all has been sent."""
        self.flush()
        self._transport.close()
