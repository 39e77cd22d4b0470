"""Our ways to Redis: what a worker that loses its connection gives back, and what it asks the system for."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu import Connection

from app.config import Settings
from app.worker.transport import Taken, Transport, _Loop


class Channel:
    """Takes messages back, or does not."""

    do_restore = False

    def __init__(self, *, is_away: bool) -> None:
        self._is_away = is_away
        self.asked: list[str] = []

    def _restore(self, message: Any) -> None:
        self.asked.append(message)
        if self._is_away:
            raise redis.ConnectionError("away")


@pytest.mark.parametrize(("is_away", "asked"), [(False, ["c", "b", "a"]), (True, ["c"])])
def test_a_redis_that_is_away_is_asked_once_and_not_for_each_message(is_away: bool, asked: list[str]) -> None:  # noqa: FBT001
    channel = Channel(is_away=is_away)
    taken = Taken(channel)
    for message in ("a", "b", "c"):
        taken.append(message, message)

    assert taken.restore_unacked() == [], "nothing is left to be written to files"
    assert channel.asked == asked
    assert not taken._delivered


class EventLoop:
    """Remembers what it was asked to watch."""

    def __init__(self) -> None:
        self.readers: dict[int, Any] = {}
        self.asked: list[int] = []

    def add_reader(self, number: int, *how: Any) -> None:
        self.asked.append(number)
        self.readers[number] = how

    def remove_reader(self, number: int) -> None:
        del self.readers[number]


def test_a_socket_is_watched_once_and_again_when_it_is_not_or_is_another() -> None:
    hub, cycle = EventLoop(), SimpleNamespace(_chan_to_sock={})
    loop = _Loop(hub, cycle)
    first, second = socket.socketpair()
    number = first.fileno()

    def ask() -> list[int]:
        hub.asked.clear()
        loop.add_reader(number, print, number)
        return hub.asked

    cycle._chan_to_sock["BRPOP"] = first
    assert [bool(ask()) for _ in range(3)] == [True, False, False]
    loop.remove_reader(number)
    assert [bool(ask()) for _ in range(2)] == [True, False]
    first.close()
    assert [bool(ask()) for _ in range(2)] == [True, True], "nobody knows what it is by now"
    with socket.socket(fileno=socket.dup(second.fileno())) as other:  # the number that has become free
        assert other.fileno() == number
        cycle._chan_to_sock["BRPOP"] = other
        assert [bool(ask()) for _ in range(2)] == [True, False]
    second.close()
    assert hub.readers[number] == (print, number)


def test_all_that_is_sent_goes_by_one_client_until_its_connections_are_given_up(settings: Settings) -> None:
    with Connection(settings.broker_url, transport=Transport) as connection:
        channel = connection.channel()
        senders = [channel._create_client() for _ in range(2)]
        receivers = [channel._create_client(asynchronous=True) for _ in range(2)]
        channel._pool = None  # as kombu leaves it when a connection has broken
        later = channel._create_client()

        assert senders[0] is senders[1]
        assert senders[0].ping()
        assert len({id(client) for client in (*receivers, senders[0])}) == 3
        assert later is not senders[0]
        assert later.ping()
