"""A short way to a script, for who runs one between work that leaves nothing in the processor's caches.

From a call of redis-py's to its bytes and back there are hundreds of steps. Here a script's command is put together at
once, sent on a connection that is kept, and answered. Whatever does not go well, a break as well as an error that Redis
answers, is left to redis-py, with its patience: it runs the script again, as it does when an answer is lost.
"""

import os
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import hiredis
import redis
from pydantic_core import to_json
from redis.exceptions import RedisError

from app import scripts

_CHUNK_BYTES = 1 << 16
#: As long as redis-py trusts a connection of ours without a look at it.
_LONGEST_UNUSED_S = 10


class ShortWay:
    """Scripts on a client's Redis, whose answers come as bytes. Threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        #: Those that nobody uses; mostly one.
        self._lines: list[_Kept] = []

    def call(self, name: str, *texts: str, **given: Any) -> Any:
        """As `scripts.call`."""
        try:
            line = self._take()
            answer = line.ask(_command(name, given, texts))
        except (RedisError, OSError, hiredis.HiredisError):
            return scripts.call(self._client, name, *texts, **given)
        # Only now, so that one on which an answer may still come is not used again.
        self._lines.append(line)
        return answer

    def _take(self) -> "_Kept":
        try:
            while not (line := self._lines.pop()).is_good():
                pass
        except IndexError:
            return _Kept(self._client.connection_pool)
        return line


class _Kept:
    """A connection as redis-py makes it, and no more of redis-py's than that."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._process_id = os.getpid()
        self._used_s = time.monotonic()
        self._connection = pool.connection_class(**pool.connection_kwargs)
        self._connection.connect()
        self._socket: Any = self._connection._sock  # noqa: SLF001  # after its own ways of connecting and logging in
        self._reader = hiredis.Reader()

    def is_good(self) -> bool:
        """Whether it is this process's, not its parent's, and was used so lately that it has not been dropped unheard.

        An answer on one that has been would be waited for in vain, before redis-py waits for its own.
        """
        return self._process_id == os.getpid() and time.monotonic() - self._used_s < _LONGEST_UNUSED_S

    def ask(self, command: bytes) -> Any:
        """Raises `OSError` for a break, and `HiredisError` for whatever is no answer of a script."""
        self._socket.sendall(command)
        while (said := self._reader.gets()) is False:
            if not (chunk := self._socket.recv(_CHUNK_BYTES)):
                raise ConnectionResetError
            self._reader.feed(chunk)
        if isinstance(said, hiredis.ReplyError | hiredis.PushNotification):
            raise hiredis.HiredisError(said)
        self._used_s = time.monotonic()
        return said


def _command(name: str, given: dict[str, Any], texts: Sequence[str]) -> bytes:
    """Source: the Redis serialization protocol, an array of bulk strings."""
    first = to_json({name: value for name, value in given.items() if value is not None})
    said = (first, *(text.encode() for text in texts))
    return _beginning(name, len(said)) + b"".join([b"$%d\r\n%b\r\n" % (len(one), one) for one in said])


@cache
def _beginning(name: str, arguments: int) -> bytes:
    """`EVALSHA`, the script, and no keys."""
    return b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n" % (3 + arguments, scripts.digest(name).encode())
