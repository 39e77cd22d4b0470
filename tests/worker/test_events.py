"""What the worker tells the dashboard, while Redis is there and while it is not."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection

from app.broker import CeleryApp
from app.config import Settings
from app.worker import events
from tests.processes import RedisServer, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.process.kill()


class Loop:
    """The event loop of a worker's main process, whose time comes when a test says so."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def call_later(self, _seconds: float, action: Callable[[], None]) -> None:
        self.later.append(action)


def test_what_is_told_of_jobs_gathers_for_a_moment_and_survives_a_broken_connection(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, loop = CeleryApp(Settings(_env_file=None, redis_url=server.url)), Loop()
    monkeypatch.setattr(events, "get_event_loop", lambda: loop)
    with Connection(server.url) as connection, server.client() as client:
        first, second = (
            app.events.Dispatcher(connection, buffer_group=["task"], on_send_buffered=lambda: None) for _ in range(2)
        )
        with client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.psubscribe("*celeryev*")
            for name in ("received", "started"):
                first.send(f"task-{name}", uuid="a job")
            first.close()
            second.extend_buffer(first)
            second.send("task-succeeded", uuid="a job")

            for action in loop.later:
                action()
            sent = wait_for(heard.get_message, what="all of it")
            assert heard.get_message(timeout=0.1) is None
    assert len(loop.later) == 2, "one for each dispatcher"
    assert sent["channel"].endswith("task.multi")
    told = json.loads(base64.b64decode(json.loads(sent["data"])["body"]))
    assert [event["type"] for event in told] == ["task-received", "task-started", "task-succeeded"]


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
