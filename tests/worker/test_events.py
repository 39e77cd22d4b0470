"""What the worker tells the dashboard, while Redis is there and while it is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from app.broker import CeleryApp
from app.config import Settings
from tests.processes import RedisServer, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.process.kill()


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
