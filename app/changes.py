"""Wake-ups: one pub/sub connection for all the waiters of a process.

The process hears of the end of every job, and of the states that a job passes through while somebody here watches it as
it goes on. A waiter says which job it cares for, and whether for its end alone, reads the job once it is heard of, then
waits, so that no change can fall between. The word of an end brings along what there was to read then, unless that is
long; it holds until the next word. Only the listener touches the connection. When that breaks, all look again once
there is another; when there is none, or it falls silent, every waiter is told at once, since a wake-up may have been
missed.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from math import inf
from typing import Any, Self

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError

from app import keys, quick_json
from app.line import Line, packed
from app.passing import Passing
from app.states import TERMINAL, State

logger = logging.getLogger(__name__)

#: One that has been silent this long is given up: for so many reads, since a process that was busy has not listened.
_SILENCE_S = 1.0
_SILENT_READS = 4
#: A quiet connection is asked for a sign of life this often.
_PING_EVERY_S = _SILENCE_S / _SILENT_READS
_PING = packed("PING")
_RECONNECT_AFTER_S = 0.2
#: With the patience for a command after it, this is less than the two seconds within which we say that Redis is away.
_CONNECTED_WITHIN_S = 0.7
#: What is announced of a job that goes on.
_PASSING = frozenset(State) - TERMINAL


class _SilenceError(RedisConnectionError):
    """The connection is there, and nothing comes."""


class Watch:
    """One waiter's interest in one job, or in its end alone. Left as a context manager, it is over."""

    def __init__(self, *, until_end: bool, forget: Callable[["Watch"], None]) -> None:
        self._until_end = until_end
        self._forget = forget
        self._changed = asyncio.Event()
        self._has_changed = False
        self._broken = False
        self._released = False
        #: What the latest word said of the job; `said_in` reads it.
        self.told: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._forget(self)

    async def wait(self, *, timeout_s: float) -> bool:
        """Wait for the next change. Raises `redis.ConnectionError` if one may be lost.

        False if none came in time, or nobody is to wait any longer.
        """
        timer = asyncio.get_running_loop().call_later(timeout_s, self.release)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
        if self._broken:
            raise RedisConnectionError("the connection that carries wake-ups broke")
        if not self._has_changed:
            return False
        # What came at the last moment has come; the next wait is over at once.
        self._has_changed = False
        if not self._released:
            self._changed.clear()
        return True

    @property
    def is_broken(self) -> bool:
        """Whether a change may have been lost."""
        return self._broken

    def hear(self, word: str, told: str) -> None:
        """End the wait, if this is what is waited for."""
        self.told = told or None
        if not self._until_end or word not in _PASSING:
            self._has_changed = True
            self._changed.set()

    def wake(self, *, broken: bool = False) -> None:
        """End the wait, to look again."""
        self.told = None
        self._broken = self._broken or broken
        self._has_changed = True
        self._changed.set()

    def release(self) -> None:
        """End this wait and those to come, as if their time were up."""
        self._released = True
        self._changed.set()


def said_in(told: str) -> list[Any]:
    """What there was to read of a job when a word was said. Its state is told as it is stored, after the rest."""
    rest, _, state = told.partition("\n")
    said: list[Any] = quick_json.loads(rest)
    return [*said[:2], state, *said[3:]]


class Changes:
    """The waiters of this process and the connection they share."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._watches: dict[str, set[Watch]] = {}
        self._passing = Passing(self._say)
        self._line: Line | None = None
        self._connected = asyncio.Event()
        self._released = False
        self._stopping = False
        self._is_cut_off = False
        self._heard = False

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen in the background, reconnecting as needed."""
        listener = asyncio.create_task(self._run())
        try:
            yield
        finally:
            # A cancellation alone can get lost in `asyncio.wait_for`, which redis-py uses, before Python 3.12.
            self._stopping = True
            listener.cancel()
            await asyncio.wait({listener})

    async def watch(self, job_id: str, *, until_end: bool = False) -> Watch:
        """Be told of a job's end from here on, or of all its changes. Raises `redis.ConnectionError` if nobody is.

        Who is to be told of all is woken first when that is so.
        """
        if not self._connected.is_set():
            await self._until_connected()
        watch = Watch(until_end=until_end, forget=partial(self._forget, job_id))
        self._watches.setdefault(keys.change(job_id), set()).add(watch)
        if not until_end:
            self._passing.join(keys.passing(job_id), watch)
        if self._released:
            watch.release()
        return watch

    async def _until_connected(self) -> None:
        try:
            async with asyncio.timeout(_CONNECTED_WITHIN_S):
                await self._connected.wait()
        except TimeoutError:
            raise RedisConnectionError("there is no connection for wake-ups") from None

    def _forget(self, job_id: str, watch: Watch) -> None:
        channel = keys.change(job_id)
        watches = self._watches[channel]
        watches.discard(watch)
        if not watches:
            del self._watches[channel]
        self._passing.leave(keys.passing(job_id), watch)

    def release(self) -> None:
        """Let nobody wait any longer, neither those who wait now nor those who come."""
        self._released = True
        for watch in itertools.chain.from_iterable(self._watches.values()):
            watch.release()

    async def _run(self) -> None:
        mended_s = -inf
        while not self._stopping:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                is_first = time.monotonic() - mended_s >= _SILENCE_S
                if is_first and self._connected.is_set() and not isinstance(error, _SilenceError):
                    # A connection can break alone. A new one tells at once.
                    mended_s = time.monotonic()
                    self._connected.clear()
                    continue
                if not self._is_cut_off:
                    logger.warning("wake-ups are interrupted: %s", error or type(error).__name__)
                self._is_cut_off = True
            except Exception:  # without a listener nobody could wait any more: say so, and connect anew
                logger.exception("wake-ups are interrupted")
            self._connected.clear()
            self._wake_all(broken=True)
            await asyncio.sleep(_RECONNECT_AFTER_S)

    async def _listen(self) -> None:
        lost = asyncio.Event()
        line = await Line.open(self._redis, hear=self._hear, lose=lost.set, timeout_s=_SILENCE_S)
        try:
            self._line = line
            self._passing.resume()
            # Last: the answer to this says that all is heard.
            self._say("PSUBSCRIBE", keys.change("*"))
            silent_reads = 0
            while not self._stopping:
                self._heard = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PING_EVERY_S):
                        await lost.wait()
                    raise RedisConnectionError("the connection that carries wake-ups broke")
                silent_reads = 0 if self._heard else silent_reads + 1
                if silent_reads == _SILENT_READS:
                    raise _SilenceError("Redis has fallen silent")
                if silent_reads:
                    line.send(_PING)
        finally:
            self._line = None
            line.close()

    def _say(self, *command: str) -> None:
        if self._line is not None:
            self._line.send(packed(*command))

    def _hear(self, said: Any) -> None:
        # Whatever it is: a Redis that cannot save refuses even a ping, but it lives.
        self._heard = True
        match said:
            case ["pmessage", _, channel, said_of_it]:
                if watches := self._watches.get(channel):
                    word, _, told = said_of_it.partition(" ")
                    for watch in watches:
                        watch.hear(word, told)
            case ["message", channel, word]:
                self._passing.hear(channel, word)
            case ["subscribe", channel, _]:
                self._passing.heard(channel)
            case ["psubscribe", *_]:
                # Not the first one: a word may have been missed, so all look again.
                self._wake_all()
                self._connected.set()
                if self._is_cut_off:
                    logger.warning("wake-ups arrive again")
                self._is_cut_off = False
            case NoPermissionError():
                logger.warning("Redis refuses wake-ups: %s", said)

    def _wake_all(self, *, broken: bool = False) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake(broken=broken)
