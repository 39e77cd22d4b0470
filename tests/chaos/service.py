"""What is put to the test: one Redis, two workers of two processes each, and two API processes."""

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import redis

from app import keys
from tests.processes import ROOT, Process, RedisServer, free_port, wait_for

WORKERS = ("one", "two")
PROCESSES = 2


class DurableRedis(RedisServer):
    """A Redis that has written down what it has answered, so that it may be killed at any moment."""

    def start(self, *more: str) -> Process:
        return super().start("--appendfsync", "always", *more)

    def quick_client(self) -> redis.Redis:
        """A client that does not wait for a Redis that hangs."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)


class Service:
    """All processes, by name, and how each of them is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "data"
        self.storage.mkdir()
        self.redis = DurableRedis(folder)
        self.workers: dict[str, Process] = {}
        self.apis: dict[int, Process] = {}
        self._environment = {
            "REDIS_URL": self.redis.url,
            "STORAGE_ROOT": str(self.storage),
            "WORKER_CONCURRENCY": str(PROCESSES),
            "REMAP_SIGTERM": "SIGQUIT",
            "TASK_TIME_LIMIT": "60",
            "RETRY_BACKOFF_S": "0.2",
            "TOMBSTONE_TTL": "5",
            "MIN_FREE_DISK": "0",
            "PYTHONWARNINGS": "ignore",
        }
        self._started: list[Process] = []

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        for port in (free_port(), free_port()):
            self.start_api(port)
        for name in WORKERS:
            self.start_worker(name)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until both API processes answer and both workers have announced themselves. Raises `AssertionError`."""
        for address in self.addresses:
            wait_for(partial(_ready, address), timeout_s=90, what="readiness")
        with contextlib.closing(self.redis.client()) as client:
            for name in WORKERS:
                announced = partial(client.exists, keys.worker(f"{name}@chaos"))
                wait_for(announced, timeout_s=90, what=f"the word of worker {name}")

    @property
    def addresses(self) -> list[str]:
        """Where the API processes are."""
        return [f"http://127.0.0.1:{port}" for port in self.apis]

    def start_worker(self, name: str) -> None:
        """Start a worker, or one in the place of its predecessor."""
        argv = ["-m", "celery", "-A", "tests.chaos.worker", "worker", "--without-gossip", "--without-mingle"]
        self.workers[name] = self._start([*argv, "-n", f"{name}@chaos"], log=f"worker-{name}.log")

    def start_api(self, port: int) -> None:
        """Start an API process, or one in the place of its predecessor."""
        self.apis[port] = self._start(["-m", "tests.chaos.api"], log=f"api-{port}.log", API_PORT=str(port))

    def close(self) -> None:
        """End everything, and what killed processes may have left running."""
        for process in self._started:
            process.kill()
        self.redis.close()

    def _start(self, argv: list[str], *, log: str, **more: str) -> Process:
        environment = {**self._environment, **more}
        process = Process([sys.executable, *argv], log=self.folder / log, environment=environment, cwd=ROOT)
        self._started.append(process)
        return process


@contextlib.contextmanager
def service(folder: Path) -> Iterator[Service]:
    """The service, ready, and gone afterwards."""
    running = Service(folder)
    try:
        running.start()
        yield running
    finally:
        running.close()


def _ready(address: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{address}/health/ready", timeout=5)
        return answer.status_code == 200 and not answer.json()["reasons"]
    return False
