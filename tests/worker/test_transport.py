"""Our ways to Redis: what a worker that loses its connection gives back, and what it asks the system for."""

import json
import socket
from collections.abc import Iterator
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu import Connection
from kombu.transport.redis import Channel as KombuChannel

from app.broker import CeleryApp
from app.config import Settings
from app.worker.transport import Taken, Transport, _Loop
from tests.records import new_job


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


class Line:
    """A connection to Redis that remembers what is sent."""

    def __init__(self, connection: Any) -> None:
        self._sock = connection._sock
        self.pack_command = connection.pack_command
        self.sent: list[Any] = []

    def send_packed_command(self, command: Any) -> None:
        self.sent.append(command)

    def send_command(self, *words: Any) -> None:
        self.sent.append(self.pack_command(*words))


@pytest.fixture
def channel(settings: Settings) -> Iterator[Any]:
    with Connection(
        settings.broker_url, transport=Transport, transport_options={"priority_steps": [0, 5]}
    ) as connection:
        channel = connection.channel()
        for queue in ("first", "second"):
            channel.basic_consume(queue, no_ack=False, callback=print, consumer_tag=queue)
        channel.connection.cycle._register_BRPOP(channel)  # connects, and asks for a first message
        line = channel.client.connection
        yield channel
        line.disconnect()  # or it would take the messages of other tests


def test_what_redis_is_asked_is_what_kombu_asks_in_every_order_of_the_queues(channel: Any) -> None:
    channel.client.connection = line = Line(channel.client.connection)
    for _ in range(4):
        channel._brpop_start()
        KombuChannel._brpop_start(channel)
        channel._queue_cycle.rotate("first" if len(line.sent) % 4 else "second")

    assert line.sent[::2] == line.sent[1::2]
    assert b"second\x06\x165" in b"".join(line.sent[0])
    assert len({b"".join(question) for question in line.sent}) == 2
    assert channel._in_poll is line
    channel.basic_cancel("first")
    channel._brpop_start()
    assert b"first" not in b"".join(line.sent[-1])


def test_in_each_turn_redis_is_asked_for_what_may_be_had_and_kombu_does_what_is_more(channel: Any) -> None:
    cycle, line = channel.connection.cycle, Line(channel.client.connection)
    socket_of_now, channel.client.connection = channel.client.connection._sock, line

    assert [cycle.ask() for _ in range(2)] == [True, True]
    assert not line.sent, "it waits for an answer already"
    channel._in_poll = None
    assert [cycle.ask() for _ in range(2)] == [True, True]
    assert len(line.sent) == 1
    channel.qos.prefetch_count = 1
    channel.qos.append("a message", "its tag")
    assert not cycle.ask(), "kombu listens to no answer while nothing may be had"
    channel._in_poll = None
    assert cycle.ask()
    assert len(line.sent) == 1
    channel.qos.ack("its tag")
    cycle._paused_brpop[5] = "what kombu has left off listening to"
    assert not cycle.ask()
    cycle._paused_brpop.clear()
    line._sock = None
    assert not cycle.ask(), "kombu connects"
    line._sock = socket_of_now
    channel.active_fanout_queues.add("orders")
    assert not cycle.ask(), "kombu subscribes"


def test_a_message_is_taken_and_its_queue_is_the_last_to_be_asked_next(client: redis.Redis, channel: Any) -> None:
    taken: list[Any] = []
    channel.connection._callbacks["second"] = taken.append
    client.lpush("second\x06\x165", json.dumps({"body": "é"}))

    assert channel._brpop_read() is True

    assert taken == [{"body": "é"}]
    assert channel._queue_cycle.items == ["first", "second"]
    assert not channel._in_poll
    channel._brpop_start(timeout=1)
    with pytest.raises(Empty):
        channel._brpop_read()
    assert not channel._in_poll


def test_what_is_given_back_is_read_as_it_was(client: redis.Redis, channel: Any, celery: CeleryApp) -> None:
    job = new_job(filename="ä.jpg")
    said = json.loads(celery.messages.encode(job))
    said["properties"]["delivery_info"]["routing_key"] = "second"
    client.lpush("second\x06\x165", json.dumps(said))

    def take() -> Any:
        assert channel._brpop_read() is True
        (taken,) = channel.qos._delivered.values()
        return taken

    first = take()
    channel.basic_reject(first.delivery_tag, requeue=True)
    channel._brpop_start(timeout=1)
    second = take()
    channel.basic_ack(second.delivery_tag)

    (path,), named, _ = second.payload
    assert (path, named["options"]) == (job.path, job.options)
    assert second.payload == first.payload
    assert second.headers["redelivered"] is True


def test_a_connection_that_breaks_while_it_is_waited_for_is_closed_and_told_of(channel: Any) -> None:
    channel.client.connection._sock.shutdown(socket.SHUT_RDWR)

    with pytest.raises(channel.connection_errors):
        channel._brpop_read()

    assert not channel._in_poll
    assert channel.client.connection._sock is None


def test_the_event_loop_calls_kombu_only_where_there_is_more_to_do_than_to_ask() -> None:
    hub, called = SimpleNamespace(on_tick=set()), []
    cycle = SimpleNamespace(ask=lambda: True)
    _Loop(hub, cycle).on_tick.add(lambda: called.append("kombu"))
    (tick,) = hub.on_tick

    tick()
    assert not called
    cycle.ask = lambda: False
    tick()
    assert called == ["kombu"]
