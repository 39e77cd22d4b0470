"""A client of Redis that waits no longer for it than our own clients shall wait for us.

All commands go over one line, one behind the other, whoever asks: a command costs neither a connection of its own nor
a timer. A line that breaks is replaced, and what it has left unanswered is said once more, as redis-py does. One over
which an answer did not come in time is asked nothing more; those who wait there go on waiting, for Redis may have what
they said, and would do it twice.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.line import Line, packed

#: For all that a command may need: a line, its opening, a second try where it broke, the answer.
_PATIENCE_S = 1.2
#: A Redis that has answered another command so lately is there: it is this process that is busy, and catches up.
_THERE_S = 0.6
_MOST_PATIENCE_S = 10
#: After one that was in vain, until another succeeds: a request may need several.
_LITTLE_PATIENCE_S = 0.5
#: While anything is waited for, what has waited too long is looked for this often.
_LOOK_EVERY_S = 0.1


def connect(url: str) -> "PatientRedis":
    """A client that decodes; it connects when it is used."""
    client = PatientRedis.from_url(
        url,
        decode_responses=True,
        # Every command is bounded as a whole; a limit of redis-py's own would cost a task for each.
        socket_timeout=None,
        socket_connect_timeout=_PATIENCE_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return cast("PatientRedis", client)


class PatientRedis(aioredis.Redis):
    """Gives commands up in time. It has no pipelines: commands that are begun together go together."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: What is not answered yet, wherever it is.
        self._asked: set[_Command] = set()
        #: Of those, what waits for a line.
        self._unsaid: list[_Command] = []
        self._current: _Conversation | None = None
        #: Those that are asked nothing more, but may yet answer.
        self._mute: list[_Conversation] = []
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in_vain = False
        self._answered_s = 0.0

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and give its answer. Raises `redis.RedisError`."""
        loop = asyncio.get_running_loop()
        patience_s = _LITTLE_PATIENCE_S if self._in_vain else _PATIENCE_S
        command = _Command(said=packed(*args), answer=loop.create_future(), asked_s=loop.time(), patience_s=patience_s)
        self._asked.add(command)
        if self._timer is None:
            self._timer = loop.call_later(_LOOK_EVERY_S, self._look)
        if self._current is None:
            self._say_later([command])
        else:
            self._current.ask(command)
        try:
            answer = await command.answer
        finally:
            self._asked.discard(command)
        understood = self.response_callbacks.get(args[0])
        if understood is None:
            return answer
        options.pop("keys", None)  # for caches of redis-py's
        return understood(answer, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  # redis-py's
        """Hang up."""
        if self._connecting is not None:
            self._connecting.cancel()
        for conversation in (self._current, *self._mute):
            if conversation is not None:
                conversation.give_up()
        await super().aclose(close_connection_pool)

    def answered(self) -> None:
        """Redis has said something."""
        self._in_vain = False
        self._answered_s = asyncio.get_running_loop().time()

    def broken(self, conversation: "_Conversation") -> None:
        """A line has broken. What was said over it twice in vain is said no more."""
        if conversation is self._current:
            self._current = None
        left = conversation.give_up()
        for command in left:
            if command.again:
                self._fail(command, RedisConnectionError("the connection to Redis broke"))
        again = [command for command in left if not command.answer.done()]
        for command in again:
            command.again = True
        if again:
            self._say_later(again)

    def _say_later(self, commands: Iterable["_Command"]) -> None:
        self._unsaid += commands
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        conversation = _Conversation(self)
        error: RedisError | None = None
        try:
            await conversation.open()
            self._current = conversation
        except TimeoutError:
            error = RedisTimeoutError("Redis did not answer in time")
        except RedisError as failed:
            error = failed
        finally:
            self._connecting = None
            unsaid, self._unsaid = self._unsaid, []
        for command in unsaid:
            if error is not None:
                self._fail(command, error)
            elif not command.answer.done():
                conversation.ask(command)

    def _look(self) -> None:
        """Give up what has waited too long, and ask nothing more over a line where it did."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        is_there = now - self._answered_s < _THERE_S
        for command in self._asked:
            if now - command.asked_s >= (_MOST_PATIENCE_S if is_there else command.patience_s):
                self._fail(command, RedisTimeoutError("Redis did not answer in time"))
        if self._current is not None and self._current.is_mute:
            self._mute.append(self._current)
            self._current = None
        for conversation in [each for each in self._mute if not each.is_awaited]:
            self._mute.remove(conversation)
            conversation.give_up()
        self._timer = loop.call_later(_LOOK_EVERY_S, self._look) if self._asked else None

    def _fail(self, command: "_Command", error: RedisError) -> None:
        if not command.answer.done():
            self._in_vain = True
            command.answer.set_exception(error)


@dataclass(eq=False, slots=True, kw_only=True)
class _Command:
    """What was asked, and what becomes of it."""

    said: bytes
    answer: asyncio.Future[Any]
    #: By the clock of the loop.
    asked_s: float
    patience_s: float
    #: Whether a line has broken with it.
    again: bool = False


class _Conversation:
    """A line, and the commands whose answers are still to come over it, in their order."""

    def __init__(self, client: PatientRedis) -> None:
        self._client = client
        self._commands: deque[_Command] = deque()
        self._line: Line

    async def open(self) -> None:
        """Connect. Raises `redis.RedisError` and `TimeoutError`."""
        self._line = await Line.open(self._client, hear=self._hear, lose=self._lose, timeout_s=_PATIENCE_S)

    def ask(self, command: _Command) -> None:
        """Say a command."""
        self._commands.append(command)
        self._line.send(command.said)

    @property
    def is_mute(self) -> bool:
        """Whether somebody has waited in vain for an answer that should have come."""
        return any(command.answer.done() and not command.answer.cancelled() for command in self._commands)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody still waits for an answer."""
        return any(not command.answer.done() for command in self._commands)

    def give_up(self) -> list[_Command]:
        """Hang up. Returns what was not answered."""
        left = [command for command in self._commands if not command.answer.done()]
        self._commands.clear()
        self._line.close()
        return left

    def _hear(self, said: Any) -> None:
        if isinstance(said, hiredis.PushNotification):  # is no answer
            return
        command = self._commands.popleft()
        self._client.answered()
        if command.answer.done():  # who asked has gone
            return
        if isinstance(said, Exception):
            command.answer.set_exception(said)
        else:
            command.answer.set_result(said)

    def _lose(self) -> None:
        self._client.broken(self)
