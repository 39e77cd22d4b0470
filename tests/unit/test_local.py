"""The local mode, as far as it can be seen without starting it."""

import contextlib
import io
import re
import socket
from pathlib import Path

import pytest

from app import local
from app.api.draining import FINISH_S, NOTICE_S
from app.broker import SOFT_SHUTDOWN_S
from app.config import Settings
from tests.processes import free_port


def settings(tmp_path: Path, **values: object) -> Settings:
    ports = {name: free_port() for name in ("api_port", "flower_port", "redis_port")}
    return Settings(_env_file=None, **{"storage_root": tmp_path / "data", **ports, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["api_port", "flower_port", "redis_port"])
def test_a_taken_port_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with contextlib.closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(local.LaunchError) as refused:
            local.up(settings(tmp_path, **{name: port}))

    assert str(refused.value) == (
        f"Port {port} is taken (Address already in use). Choose another: make up {name.upper()}={port + 1}"
    )


def test_four_programs_run_and_only_three_with_a_redis_elsewhere(tmp_path: Path) -> None:
    assert list(local.programs(settings(tmp_path))) == ["redis", "worker", "api", "flower"]
    assert list(local.programs(settings(tmp_path, redis_url="redis://cache/0"))) == ["worker", "api", "flower"]


def test_redis_keeps_what_it_is_given(tmp_path: Path) -> None:
    argv = local.programs(settings(tmp_path))["redis"].argv

    assert argv[argv.index("--appendonly") + 1] == "yes"
    assert argv[argv.index("--maxmemory-policy") + 1] == "noeviction"
    assert argv[argv.index("--bind") + 1] == "127.0.0.1"


def test_redis_is_reached_by_a_socket_that_is_its_owners_alone(tmp_path: Path) -> None:
    path = Path("/run/a/redis.sock")

    found = local.programs(settings(tmp_path), redis_socket=path)

    argv = found["redis"].argv
    assert argv[argv.index("--unixsocket") + 1] == str(path)
    assert argv[argv.index("--unixsocketperm") + 1] == "700"
    assert {found[name].environment["REDIS_URL"] for name in ("worker", "api", "flower")} == {f"unix://{path}"}


def test_by_its_port_where_it_is_another_or_they_are_run_one_by_one(tmp_path: Path) -> None:
    elsewhere = local.programs(settings(tmp_path, redis_url="redis://cache/0"), redis_socket=Path("/run/a/redis.sock"))
    alone = local.programs(settings(tmp_path, redis_port=7000))

    assert elsewhere["api"].environment["REDIS_URL"] == "redis://cache/0"
    assert alone["api"].environment["REDIS_URL"] == "redis://localhost:7000/0"
    assert "--unixsocket" not in alone["redis"].argv


@pytest.mark.parametrize(
    ("root", "has_one"),
    [("/srv/darkroom", True), ("/" + "long" * 25, False), ("/a b", False), ("/50%", False), ("/which?", False)],
)
def test_a_socket_has_a_path_that_is_short_and_plain(tmp_path: Path, root: str, has_one: bool) -> None:  # noqa: FBT001
    supervisor = local.Supervisor(settings(tmp_path, storage_root=Path(root)))

    assert supervisor.redis_socket() == (Path(root) / "run" / "redis.sock" if has_one else None)


def test_what_stops_is_given_its_time(tmp_path: Path) -> None:
    configuration = io.StringIO()

    local.Supervisor(settings(tmp_path))._write_configuration(configuration)

    waits = {int(seconds) for seconds in re.findall(r"stopwaitsecs = (\d+)", configuration.getvalue())}
    assert min(waits) >= max(SOFT_SHUTDOWN_S + 10, NOTICE_S + FINISH_S + 5)


def test_without_a_redis_on_the_path_the_packaged_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert Path(local.redis_server()).name == "redis-server"
    assert Path(local.redis_server()).is_file()


@pytest.mark.parametrize("act", [local.ps, local.down])
def test_nothing_running_is_said(tmp_path: Path, act: object, capsys: pytest.CaptureFixture[str]) -> None:
    act(settings(tmp_path))  # type: ignore[operator]

    assert "Nothing is running." in capsys.readouterr().out


def test_an_unknown_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(local.LaunchError, match="There are: redis, worker, api, flower"):
        local.run(settings(tmp_path), "celery")
