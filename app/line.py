"""A connection to Redis that is read as it comes, answers and announcements alike.

redis-py opens it, with all that its address asks for. From then on each word is parsed where it arrives, instead of in
a task that has to be woken for it, and a command goes straight to the transport.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
import redis.asyncio as aioredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

_NOT_ALL = object()


class Line(asyncio.Protocol):
    """One connection. `hear` is given what Redis says, in its order; `lose` is called once nothing more comes.

    An error that Redis answers is heard as the exception that redis-py makes of it.
    """

    def __init__(self, writer: asyncio.StreamWriter, *, hear: Callable[[Any], None], lose: Callable[[], None]) -> None:
        self._writer = writer
        self._hear = hear
        self._lose = lose
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            encoding="utf-8",
            errors="replace",  # what somebody has put there by hand must not break the line for all
            notEnoughData=_NOT_ALL,
        )

    @classmethod
    async def open(
        cls, client: aioredis.Redis, *, hear: Callable[[Any], None], lose: Callable[[], None], timeout_s: float
    ) -> "Line":
        """Connect as `client` does. Raises `redis.RedisError` and `TimeoutError`."""
        connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # What redis-py has opened is ours from here on; it has no public way to hand a connection over.
        reader, writer = connection._reader, connection._writer  # noqa: SLF001
        connection._reader = connection._writer = None  # noqa: SLF001
        line = cls(writer, hear=hear, lose=lose)
        if reader.at_eof() or writer.transport.is_closing():
            line.close()
            raise RedisConnectionError("the connection to Redis broke as soon as it was there")
        writer.transport.set_protocol(line)
        return line

    def send(self, command: bytes) -> None:
        """Say a command, as `packed` makes it."""
        self._writer.transport.write(command)

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Something has come: one answer, a part of it, or several."""
        self._reader.feed(data)
        while (said := self._reader.gets()) is not _NOT_ALL:
            self._hear(said)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # whatever it was
        """Nothing more comes."""
        self._lose()


def packed(*words: Any) -> bytes:
    """A command as Redis reads it. Names of two words, which redis-py gives as one, are taken apart."""
    name, *arguments = words
    command: bytes = hiredis.pack_command((*name.split(), *arguments))
    return command
