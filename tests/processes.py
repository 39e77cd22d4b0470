"""Redis, workers and the API as real processes on free ports, and conditions to wait for."""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM
from typing import TypeVar

import httpx
import redis

from app import keys
from app.local import redis_command

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "tests" / "photos"
T = TypeVar("T")


@cache
def model_cache() -> Path:
    """What all tests share of what is made of weights, which takes seconds; made anew for other code."""
    sources = sorted((ROOT / "app" / "worker").rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    folder = ROOT / ".cache" / f"models-{digest[:12]}"
    for other in folder.parent.glob("models-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    (folder / "model-cache").mkdir(parents=True, exist_ok=True)
    return folder / "model-cache"


def free_port() -> int:
    """A port nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], T | None], *, timeout_s: float = 30, what: str = "the condition") -> T:
    """The first answer of `condition` that is not false. Fails the test when the time is up."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not met within {timeout_s} s")
        time.sleep(0.02)
    return answer


class Process:
    """One process of ours, ended with its children when the test ends."""

    def __init__(self, argv: list[str], *, log: Path, environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def stop(self, number: int = SIGTERM, *, timeout_s: float = 40) -> int:
        """Signal it and wait. Returns its exit code."""
        if self._popen.poll() is None:
            self.signal(number)
        return self._popen.wait(timeout_s)

    def kill(self) -> None:
        """End it and all it started, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, SIGCONT)
            os.killpg(self.pid, SIGKILL)
        self._popen.wait(10)

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def children(self) -> list[int]:
        """Process ids of its children (Linux, proc(5))."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]


def open_files(process_id: int) -> dict[str, Path]:
    """What a process has open, by its name, as a path by which it can be opened (Linux, proc(5))."""
    found = {}
    for path in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            found[str(path.readlink())] = path
    return found


class RedisServer:
    """A real redis-server with its append-only file in `folder`, restartable on the same port and socket."""

    def __init__(self, folder: Path, *, executable: str | None = None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        # A short path, as sockets need it; the folder's may be long.
        self._sockets = tempfile.TemporaryDirectory(prefix="redis-")
        self._socket = Path(self._sockets.name) / "redis.sock"
        self.socket_url = f"unix://{self._socket}"
        self._folder = folder
        self._executable = executable
        self.process = self.start()

    def start(self, *more: str) -> Process:
        """Start it, or one in its place, with `more` options."""
        installed, *options = redis_command(port=self.port, folder=self._folder, socket_path=self._socket)
        argv = [self._executable or installed, *options, *more]
        self.process = Process(argv, log=self._folder / "redis.log", environment={})
        wait_for(self._answers, what="Redis's answer")
        return self.process

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def close(self) -> None:
        self.process.kill()
        self._sockets.cleanup()

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False


class Installation:
    """A Redis, an API and workers that share one storage folder."""

    def __init__(self, folder: Path, *, source: Path, by_socket: bool = False, **settings: str) -> None:
        self.folder = folder
        self._source = source
        self.storage = folder / "data"
        self.storage.mkdir()
        (self.storage / "model-cache").symlink_to(model_cache())
        self.redis = RedisServer(folder)
        self.port = free_port()
        self.settings = {
            "REDIS_URL": self.redis.socket_url if by_socket else self.redis.url,
            "API_PORT": str(self.port),
            "STORAGE_ROOT": str(self.storage),
            "WORKER_CONCURRENCY": "2",
            "RETRY_BACKOFF_S": "0.2",
            "PYTHONWARNINGS": "ignore",
            **settings,
        }
        self._processes: list[Process] = []
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    def start_api(self, module: str = "tests.fake_api", *, port: int | None = None) -> Process:
        """Start an API, on a port of its own if there are to be several, and wait until it answers."""
        port = port or self.port
        process = self._start([sys.executable, "-m", module], log=f"api-{port}.log", API_PORT=str(port))
        wait_for(lambda: _lives(f"http://127.0.0.1:{port}"), timeout_s=60, what="the API's answer")
        return process

    def start_worker(self, module: str = "tests.fake_worker", *, name: str = "one", **settings: str) -> Process:
        """Start a worker and wait until it has announced itself."""
        argv = [sys.executable, "-m", "celery", "-A", module, "worker", "--without-gossip", "--without-mingle"]
        process = self._start([*argv, "-n", f"{name}@test"], log=f"{name}.log", REMAP_SIGTERM="SIGQUIT", **settings)
        with contextlib.closing(self.redis.client()) as client:
            wait_for(lambda: client.exists(f"worker:{name}@test"), timeout_s=60, what=f"the word of worker {name}")
        return process

    def remember_worker(self, *tasks: str) -> None:
        """Leave what a worker leaves that served these tasks and is away."""
        with contextlib.closing(self.redis.client()) as client:
            for task in tasks:
                client.set(keys.served(task), "{}")

    def wait_until_ready(self) -> None:
        """Wait until every task that a worker serves has loaded."""
        wait_for(self._all_loaded, timeout_s=60, what="readiness")

    def submit(self, task: str, picture: bytes | Path, **options: object) -> str:
        """Submit and return the job id; fails the test unless it was accepted."""
        answer = self.post(task, picture, **options)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def post(self, task: str, picture: bytes | Path, **options: object) -> httpx.Response:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        fields = {name: str(value) for name, value in options.items()}
        return self.http.post(f"/{task}", files={"file": ("picture", content)}, data=fields)

    def status(self, job_id: str) -> dict[str, object]:
        return dict(self.http.get(f"/status/{job_id}").json())

    def wait_for_state(self, job_id: str, *states: str, timeout_s: float = 30) -> dict[str, object]:
        def reached() -> dict[str, object] | None:
            document = self.status(job_id)
            return document if document["state"] in states else None

        return wait_for(reached, timeout_s=timeout_s, what=f"state {states} of {job_id}")

    def result(self, job_id: str, *, timeout_s: float = 30) -> dict[str, object]:
        """The result, once the job has ended; fails the test if it failed."""
        document = self.wait_for_state(job_id, "SUCCESS", "FAILURE", timeout_s=timeout_s)
        assert document["state"] == "SUCCESS", document
        return dict(self.http.get(f"/result/{job_id}").json())

    def crashes(self, job_id: str) -> int:
        """How many processes have died while they ran this job."""
        with self.redis.client() as client:
            return int(str(client.hget(keys.job(job_id), "crashes") or 0))

    def process_of(self, job_id: str) -> int:
        """The process that runs this job."""
        with self.redis.client() as client:
            return int(str(client.hget(keys.job(job_id), "process")).rpartition(":")[2])

    def close(self) -> None:
        self.http.close()
        for process in self._processes:
            process.kill()
        self.redis.close()

    def _start(self, argv: list[str], *, log: str, **environment: str) -> Process:
        process = Process(argv, log=self.folder / log, environment={**self.settings, **environment}, cwd=self._source)
        self._processes.append(process)
        return process

    def _all_loaded(self) -> bool:
        answer = self.http.get("/health/ready")
        return answer.status_code == 200 and not answer.json()["reasons"]


def _lives(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health/live").is_success
    return False


@contextlib.contextmanager
def installation(
    folder: Path, *, source: Path = ROOT, by_socket: bool = False, **settings: str
) -> Iterator[Installation]:
    """An installation of the code in `source`, gone when the test ends; its logs are printed, for a failing test."""
    service = Installation(folder, source=source, by_socket=by_socket, **settings)
    try:
        yield service
    finally:
        service.close()
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
