"""Celery's way to Redis, without notes of which messages have been taken, and with fewer steps for each.

kombu would note each of them in Redis, and strike it out when it is acknowledged, which costs the main process as much
as all else that it does for a job. The record of a run says who has it, and its lease that he lives: a message that is
lost with its worker is missed, and its run published again. What a worker gives back while it lives goes back to its
place.
"""

import logging
import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from queue import Empty
from types import SimpleNamespace
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from app import quick_json

logger = logging.getLogger(__name__)

#: So many questions are kept as they are sent; there is one for each order of the queues.
_KEPT_QUESTIONS = 64


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
    #: How many heard what was last said to all who listen; None before that.
    listeners: int | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.QoS = Taken
        self._question = lru_cache(_KEPT_QUESTIONS)(self._new_question)

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

    def _brpop_start(self, timeout: int | None = None) -> None:
        """Ask for the next message of the queues that are taken from, which take turns."""
        if queues := tuple(self._queue_cycle.items):
            self._in_poll, self._brpop_sent_at = self.client.connection, time.monotonic()
            self._in_poll.send_packed_command(self._question(queues, timeout or self.brpop_timeout))

    def _brpop_read(self, **_: Any) -> bool:
        """Take the message that has come. Raises `Empty` where there was none for a while."""
        try:
            # Raises what it raises, a break among it, with the connection closed: it is made anew where it is used.
            if not (answer := self.client.connection.read_response()):
                raise Empty
            lane, message = answer
            queue, *_ = lane.decode().rsplit(self.sep, 1)
            self._queue_cycle.rotate(queue)
            self.connection._deliver(quick_json.loads(message.decode()), queue)  # noqa: SLF001  # kombu's way
            return True
        finally:
            self._in_poll = None

    def _new_question(self, queues: tuple[str, ...], timeout_s: int) -> Any:
        lanes = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        return self.client.connection.pack_command("BRPOP", *lanes, timeout_s)

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **_: Any) -> None:
        """Say something to all who listen."""
        with self.conn_or_acquire() as client:
            self.listeners = client.publish(self._get_publish_topic(exchange, routing_key), dumps(message))

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002  # kombu's signature
        """Put a message back where it is taken next, or to the other end of its lane, `leftmost`."""
        to, payload = message.delivery_info, message.serializable()
        # As text, as it came: kombu has bytes by now, and would write them as only its own reader of JSON reads them.
        payload["body"] = message.body.decode()
        with self.conn_or_acquire() as client:
            self._do_restore_message(payload, to["exchange"], to["routing_key"], client, leftmost)


class Poller(redis.MultiChannelPoller):  # type: ignore[misc]
    """What asks Redis for messages."""

    def ask(self) -> bool:
        """Ask for what may be had. False where more than that is to be done, as kombu does it: a connection is new."""
        if self._paused_brpop:
            return False
        for channel in self._channels:
            if channel._queue_cycle.items and not self._ask_for_messages(channel):  # noqa: SLF001
                return False
            if channel.active_fanout_queues and not self._listens(channel):
                return False
        return True

    def _ask_for_messages(self, channel: Any) -> bool:
        if not self._client_registered(channel, channel.client, "BRPOP"):
            return False
        may_have_more = channel.qos.can_consume()
        if channel._in_poll:  # noqa: SLF001
            return bool(may_have_more)
        if may_have_more:
            channel._brpop_start()  # noqa: SLF001
        return True

    def _listens(self, channel: Any) -> bool:
        return bool(channel._in_listen and self._client_registered(channel, channel.subclient, "LISTEN"))  # noqa: SLF001


class Transport(redis.Transport):  # type: ignore[misc]
    """kombu's transport for Redis, by that channel."""

    Channel = Channel

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Called for each connection."""
        super().register_with_event_loop(connection, _Loop(loop, self.cycle))


class _Loop:
    """The event loop, which kombu asks in each turn to watch all its sockets: here, only those that it does not."""

    def __init__(self, loop: Any, cycle: Any) -> None:
        self._loop = loop
        self._cycle = cycle
        self.on_tick = SimpleNamespace(add=self._add_tick)
        #: What is watched under a number, which the next socket gets when this one is closed.
        self._watched: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def _add_tick(self, look_through: Callable[[], object]) -> None:
        """Have a callback called in each turn; it looks through all that it has for what is hardly ever there."""

        def ask() -> None:
            if not self._cycle.ask():
                look_through()

        self._loop.on_tick.add(ask)

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
