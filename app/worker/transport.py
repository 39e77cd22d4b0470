"""Celery's way to Redis, without notes of which messages have been taken.

kombu would note each of them in Redis, and strike it out when it is acknowledged, which costs the main process as much
as all else that it does for a job. The record of a run says who has it, and its lease that he lives: a message that is
lost with its worker is missed, and its run published again. What a worker gives back while it lives goes back to its
place.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


class Channel(redis.Channel):  # type: ignore[misc]  # kombu carries no types
    """A channel whose messages, once taken, are in the worker's memory alone."""

    ack_emulation = False

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002  # kombu's signature
        """Put a message back where it is taken next, or to the other end of its lane, `leftmost`."""
        to = message.delivery_info
        with self.conn_or_acquire() as client:
            self._do_restore_message(message.serializable(), to["exchange"], to["routing_key"], client, leftmost)


class Transport(redis.Transport):  # type: ignore[misc]
    """kombu's transport for Redis, by that channel."""

    Channel = Channel


def install() -> None:
    """Have this be what URLs of Redis mean to kombu, in this process."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:{Transport.__name__}"
