"""Celery's way to Redis, without notes of which messages have been taken.

kombu would note each of them in Redis, and strike it out when it is acknowledged, which costs the main process as much
as all else that it does for a job. The record of a run says who has it, and its lease that he lives: a message that is
lost with its worker is missed, and its run published again. What a worker gives back while it lives goes back to its
place.
"""

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


class Taken(virtual.QoS):  # type: ignore[misc]  # kombu carries no types
    """The messages that a worker has taken."""

    def restore_unacked(self) -> list[Any]:
        """Give all of them back; none any more once Redis fails to take one, for each would be waited for.

        Those come back when their leases run out. kombu would write them to files that nobody reads.
        """
        self._flush()
        try:
            while self._delivered:
                _, message = self._delivered.popitem()
                self.channel._restore(message)  # noqa: SLF001  # kombu's way
        except (RedisError, OSError) as error:
            logger.warning("%s messages could not be given back: %s", len(self._delivered) + 1, error)
            self._delivered.clear()
        return []


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel whose messages, once taken, are in the worker's memory alone."""

    ack_emulation = False
    #: What sends: kombu makes one each time.
    _sender: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.QoS = Taken

    # Each is asked for in every turn of the event loop, and kombu's own kind of property takes a lock each time.
    client = cached_property(redis.Channel.client.func)
    subclient = cached_property(redis.Channel.subclient.func)

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  # kombu's signature
        """A client to receive by, or the one to send by."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._sender is None or self._sender.connection_pool is not self.pool:
            self._sender = super()._create_client()
        return self._sender

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002  # kombu's signature
        """Put a message back where it is taken next, or to the other end of its lane, `leftmost`."""
        to = message.delivery_info
        with self.conn_or_acquire() as client:
            self._do_restore_message(message.serializable(), to["exchange"], to["routing_key"], client, leftmost)


class Transport(redis.Transport):  # type: ignore[misc]
    """kombu's transport for Redis, by that channel."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Called for each connection."""
        super().register_with_event_loop(connection, _Loop(loop, self.cycle))


class _Loop:
    """The event loop, which kombu asks in each turn to watch all its sockets: here, only those that it does not."""

    def __init__(self, loop: Any, cycle: Any) -> None:
        self._loop = loop
        self._cycle = cycle
        #: What is watched under a number, which the next socket gets when this one is closed.
        self._watched: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def add_reader(self, number: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Have a callback called when there is something to read."""
        watched = self._watched.get(number)
        if watched is None or watched.fileno() != number or number not in self._loop.readers:
            self._loop.add_reader(number, callback, *arguments)
            sockets = self._cycle._chan_to_sock.values()  # noqa: SLF001  # kombu keeps them nowhere else
            self._watched[number] = next((socket for socket in sockets if socket.fileno() == number), None)


def install() -> None:
    """Have this be what URLs of Redis mean to kombu, in this process."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:{Transport.__name__}"
