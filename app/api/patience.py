"""A client of Redis that waits no longer for it than our own clients shall wait for us."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: For all that a command may need: a free connection, its opening, a second try where it was merely stale, the answer.
_PATIENCE_S = 1.2
#: A Redis that has answered another command so lately is there: it is this process that is busy, and catches up.
_THERE_S = 0.6
_LOOK_AGAIN_S = 0.2
_MOST_PATIENCE_S = 10
#: After one that was in vain, until another succeeds: a request may need several.
_LITTLE_PATIENCE_S = 0.5
#: A command that finds them all busy waits for one: many waiters may wake at once.
_CONNECTIONS = 64


def connect(url: str) -> "PatientRedis":
    """A client that decodes; it connects when it is used."""
    pool = _Connections.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_MOST_PATIENCE_S,
        decode_responses=True,
        # `patience` bounds every command as a whole; a limit of redis-py's own would cost a task for each.
        socket_timeout=None,
        socket_connect_timeout=_PATIENCE_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return cast("PatientRedis", PatientRedis.from_pool(pool))


class _Connections(aioredis.BlockingConnectionPool):
    """Hands out a connection that is free without the queue for when none is."""

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """A connection that is ready. Raises `redis.ConnectionError`."""
        if not self._available_connections:
            return await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection


class PatientRedis(aioredis.Redis):
    """Gives commands up in time. Pipelines are to be executed under `patience`."""

    _in_vain = False
    _answered_s = 0.0

    @contextlib.asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Raises `redis.TimeoutError` for what takes too long."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look_after(seconds: float) -> None:
            nonlocal timer
            timer = loop.call_later(seconds, look)

        def look() -> None:
            if loop.time() - self._answered_s < _THERE_S:
                look_after(_LOOK_AGAIN_S)
            else:
                limit.reschedule(loop.time())

        look_after(_LITTLE_PATIENCE_S if self._in_vain else _PATIENCE_S)
        try:
            async with asyncio.timeout(_MOST_PATIENCE_S) as limit:
                yield
        except (TimeoutError, RedisConnectionError, RedisTimeoutError) as error:
            self._in_vain = True
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Redis did not answer in time") from None
            raise
        finally:
            timer.cancel()
        self._in_vain = False
        self._answered_s = loop.time()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and give its answer. Raises `redis.RedisError`."""
        async with self.patience():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
