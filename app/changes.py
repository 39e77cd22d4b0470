"""Wake-ups: one pub/sub connection for all the waiters of a process.

A waiter subscribes to its job's channel, then reads the job, then waits: no change can fall between. When the
connection breaks or falls silent, every waiter is told at once, since a wake-up may have been missed.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app import keys

logger = logging.getLogger(__name__)

#: A quiet connection is asked for a sign of life this often.
_PING_EVERY_S = 0.4
#: One that has been silent this long is given up.
_SILENCE_S = 1.2
_RECONNECT_AFTER_S = 0.2
#: Keeps the subscription from being empty, which redis-py takes for closed.
_OWN_CHANNEL = keys.change("")


class Watch:
    """One waiter's interest in one job."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._broken = False

    async def wait(self, *, timeout_s: float) -> bool:
        """Wait for the next change. False if none came in time; raises `redis.ConnectionError` if one may be lost."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        if self._broken:
            raise RedisConnectionError("the connection that carries wake-ups broke")
        self._changed.clear()
        return True

    def wake(self, *, broken: bool = False) -> None:
        """End the wait."""
        self._broken = self._broken or broken
        self._changed.set()


@dataclass
class _Channel:
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    watches: set[Watch] = field(default_factory=set)


class Changes:
    """The waiters of this process and the connection they share."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._channels: dict[str, _Channel] = {}
        self._pubsub: PubSub | None = None
        self._stopping = False

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

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                logger.warning("wake-ups are interrupted: %s", error)
            finally:
                self._pubsub = None
                self._break()
            await asyncio.sleep(_RECONNECT_AFTER_S)

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """Be told of a job's changes from here on. Raises `redis.RedisError` when that cannot be promised."""
        name, watch = keys.change(job_id), Watch()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
        channel.watches.add(watch)
        try:
            await self._subscribed(name, channel)
            yield watch
        finally:
            channel.watches.discard(watch)
            if not channel.watches and self._channels.get(name) is channel:
                del self._channels[name]
                if self._pubsub is not None:
                    with contextlib.suppress(RedisError, OSError):  # the listener meets the same error and reconnects
                        await self._pubsub.unsubscribe(name)

    async def _subscribed(self, name: str, channel: _Channel) -> None:
        if self._pubsub is None:
            raise RedisConnectionError("there is no connection for wake-ups")
        if len(channel.watches) == 1:
            await self._pubsub.subscribe(name)
        try:
            async with asyncio.timeout(_SILENCE_S):
                await channel.subscribed.wait()
        except TimeoutError:
            raise RedisConnectionError("the subscription was not confirmed") from None

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(_OWN_CHANNEL)
            self._pubsub = pubsub
            heard = time.monotonic()
            while not self._stopping:
                message = await pubsub.get_message(timeout=_PING_EVERY_S)
                now = time.monotonic()
                if message is not None:
                    heard = now
                    self._handle(message["type"], message["channel"])
                elif now - heard > _SILENCE_S:
                    raise RedisConnectionError("Redis has fallen silent")
                else:
                    await pubsub.ping()

    def _handle(self, kind: str, name: str | None) -> None:
        channel = self._channels.get(name or "")
        if channel is None:
            return
        # A second confirmation means that redis-py has reconnected: a word may have been missed, so all look again.
        if kind == "message" or (kind == "subscribe" and channel.subscribed.is_set()):
            for watch in channel.watches:
                watch.wake()
        elif kind == "subscribe":
            channel.subscribed.set()

    def _break(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.subscribed.set()
            for watch in channel.watches:
                watch.wake(broken=True)
