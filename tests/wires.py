"""A wire to Redis that loses answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum


class Loss(StrEnum):
    """What becomes of an answer."""

    #: It comes through.
    NONE = "none"
    #: The connection breaks before it, once.
    CUT_ONCE = "cut once"
    #: The connection breaks before it.
    CUT = "cut"
    #: It does not come.
    HELD = "held"


class Wire:
    """Passes everything on to Redis, and its answers back, but for those to commands that contain `words`."""

    def __init__(self, *, port: int, words: bytes) -> None:
        #: Where clients connect.
        self.port = 0
        self.loss = Loss.NONE
        #: How many answers have been lost.
        self.lost = 0
        self._redis_port = port
        self._words = words
        #: What carries, and both its ends.
        self._carried: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Wire"]:
        """Listen on a port of the system's choice."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            carrying = set(self._carried)
            for ends in self._carried.values():
                for end in ends:
                    end.close()
            if carrying:
                await asyncio.wait(carrying)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, commands = await asyncio.open_connection("127.0.0.1", self._redis_port)
        task = asyncio.current_task()
        assert task is not None, "a server's connections are tasks"
        self._carried[task] = (writer, commands)
        back = asyncio.create_task(_pass_on(answers, writer))
        with contextlib.suppress(ConnectionError):
            while sent := await reader.read(2**20):
                if self.loss is not Loss.NONE and self._words in sent:
                    back.cancel()
                    await asyncio.wait({back})
                    commands.write(sent)
                    await answers.read(2**20)
                    self.lost += 1
                    if self.loss is not Loss.HELD:
                        self.loss = Loss.NONE if self.loss is Loss.CUT_ONCE else self.loss
                        break
                else:
                    commands.write(sent)
        for end in self._carried.pop(task):
            end.close()
        back.cancel()
        await asyncio.wait({back})


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while answered := await reader.read(2**20):
            writer.write(answered)
    writer.close()
