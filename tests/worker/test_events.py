"""What the worker tells the dashboard, while Redis is there and while it is not."""

import base64
import json
import logging
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.message import Message

from app.broker import CeleryApp
from app.config import Settings
from app.worker import events
from app.worker.transport import Transport
from tests.processes import RedisServer, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.close()


def test_what_a_broken_connection_has_kept_of_jobs_is_sent_by_the_next(server: RedisServer) -> None:
    app = CeleryApp(Settings(_env_file=None, redis_url=server.url))
    with Connection(server.url) as connection, server.client() as client:
        first, second = (app.events.Dispatcher(connection, buffer_group=["task"]) for _ in range(2))
        with client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.psubscribe("*celeryev*")
            for name in ("received", "started"):
                first.send(f"task-{name}", uuid="a job")
            first.close()
            second.extend_buffer(first)
            second.send("task-succeeded", uuid="a job")
            second.flush()
            sent = wait_for(heard.get_message, what="all of it")
    assert sent["channel"].endswith("task.multi")
    told = json.loads(base64.b64decode(json.loads(sent["data"])["body"]))
    assert [event["type"] for event in told] == ["task-received", "task-started", "task-succeeded"]


def test_what_there_is_to_tell_of_jobs_gathers_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, later = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: clock.now))
    consumer: Any = events.PatientConsumer.__new__(events.PatientConsumer)
    consumer.hub = SimpleNamespace(call_later=lambda seconds, action: later.append((seconds, action)))

    for _ in range(5):
        consumer.on_send_event_buffered()
    assert later == [(events._GATHER_S, consumer._flush_events)]
    clock.now += events._GATHER_S
    consumer.on_send_event_buffered()
    assert len(later) == 2, "though the first may have gone with its connection"


def test_a_busy_worker_does_not_send_every_few_jobs(server: RedisServer) -> None:
    app = CeleryApp(Settings(_env_file=None, redis_url=server.url))
    with Connection(server.url) as connection, server.client() as client:
        dispatcher = app.events.Dispatcher(connection, buffer_group=["task"])
        with client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.psubscribe("*celeryev*")
            for _ in range(events._GATHER + 1):
                dispatcher.send("task-started", uuid="a job")
            sent = wait_for(heard.get_message, what="as much as is sent at once")
            assert not heard.get_message(timeout=0.1)
    assert len(json.loads(b64decode(json.loads(sent["data"])["body"]))) == events._GATHER


def test_while_nobody_listens_jobs_are_told_of_once_in_a_while(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: clock.now))
    app = CeleryApp(Settings(_env_file=None, redis_url=server.url))
    connection = Connection(server.url, transport=Transport)
    with connection, server.client() as client, client.pubsub(ignore_subscribe_messages=True) as heard:
        dispatcher = app.events.Dispatcher(connection, buffer_group=["task"])
        dispatcher.send("task-started", uuid="one")
        dispatcher.flush()
        heard.psubscribe("*celeryev*")
        heard.get_message(timeout=5)
        dispatcher.send("task-started", uuid="one that nobody hears of")
        clock.now += events._UNHEARD_S
        for job in ("another", "a third"):
            dispatcher.send("task-started", uuid=job)
            dispatcher.flush()
        dispatcher.send("worker-heartbeat")
        told: list[str] = []
        while not (sent := wait_for(heard.get_message, what="the events"))["channel"].endswith("heartbeat"):
            told += [event["uuid"] for event in json.loads(b64decode(json.loads(sent["data"])["body"]))]
    assert told == ["another", "a third"]


def test_a_heartbeat_waits_for_no_redis_and_is_sent_once_it_is_back(server: RedisServer) -> None:
    app = CeleryApp(Settings(_env_file=None, redis_url=server.url))
    with Connection(server.url) as connection:
        dispatcher = app.events.Dispatcher(connection, hostname="one@test")
        dispatcher.send("worker-heartbeat", retry=True)
        server.process.stop()

        dispatcher.send("worker-heartbeat", retry=True)  # Celery's own would not return

        server.start()
        with server.client() as client, client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.psubscribe("*celeryev*")
            dispatcher.flush()
            sent = wait_for(heard.get_message, what="the heartbeat")
        assert sent["channel"].endswith("worker.heartbeat")


def test_what_has_gathered_is_kept_through_an_outage_and_sent_once(server: RedisServer) -> None:
    app = CeleryApp(Settings(_env_file=None, redis_url=server.url))
    with Connection(server.url) as connection:
        dispatcher = app.events.Dispatcher(connection, hostname="one@test", buffer_group=["task"])
        dispatcher.send("worker-heartbeat")
        server.process.stop()
        dispatcher.send("task-started", uuid="a")
        dispatcher.flush()
        dispatcher.send("task-succeeded", uuid="a")
        dispatcher.flush()

        server.start()
        with server.client() as client, client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.psubscribe("*celeryev*")
            dispatcher.flush()
            dispatcher.flush()
            dispatcher.send("worker-offline")
            told = []
            while not (sent := wait_for(heard.get_message, what="the events"))["channel"].endswith("offline"):
                told += [event["type"] for event in json.loads(b64decode(json.loads(sent["data"])["body"]))]
    assert told == ["task-started", "task-succeeded"]


def test_a_message_is_acknowledged_at_once_and_all_else_waits_for_the_next_turn() -> None:
    later: list[Any] = []
    consumer: Any = events.PatientConsumer.__new__(events.PatientConsumer)
    consumer.hub = SimpleNamespace(call_soon=later.append)
    noted: list[Any] = []
    channel = SimpleNamespace(no_ack_consumers=None, basic_ack=lambda tag, multiple: noted.append(tag))
    message = Message(channel=channel, delivery_tag="its tag")

    consumer.call_soon(message.ack_log_error, logging.getLogger(), ())
    assert (noted, later) == (["its tag"], [])

    consumer.call_soon(message.reject_log_error, logging.getLogger(), ())
    assert len(later) == 1
