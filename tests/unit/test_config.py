"""Settings: their defaults, their bounds, and the page that lists them."""

import os
import subprocess
import sys
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from app.config import Settings, public_name
from tests.processes import ROOT


def load(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


def test_redis_is_on_this_machine_unless_said_otherwise() -> None:
    assert load(redis_port=7000).broker_url == "redis://localhost:7000/0"
    assert load(redis_url="rediss://cache:1/2", redis_port=7000).broker_url == "rediss://cache:1/2"


@pytest.mark.parametrize(
    ("url", "celery_url"),
    [
        ("redis://cache:1/2", "redis://cache:1/2"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix://:s%2F@/my%20run/redis.sock?db=3", "redis+socket://:s%2F@/my%20run/redis.sock?virtual_host=3"),
        ("unix:///run/redis.sock?username=u&password=p", "redis+socket://u:p@/run/redis.sock?virtual_host=0"),
    ],
)
def test_celery_is_told_of_redis_in_its_own_words(url: str, celery_url: str) -> None:
    assert load(redis_url=url).celery_url == celery_url


@pytest.mark.parametrize(("concurrency", "cores", "threads"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (8, 2, 1)])
def test_processes_share_the_cores(concurrency: int, cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.config._cores", lambda: cores)

    assert load(worker_concurrency=concurrency).threads_per_process == threads


@pytest.mark.parametrize(
    "values",
    [
        {"api_port": 0},
        {"api_port": 70_000},
        {"max_file_size": 0},
        {"task_time_limit": 10},
        {"redis_url": "amqp://rabbit"},
        {"redis_url": "unix://redis.sock"},
        {"redis_url": "unix://run/redis.sock"},
        {"redis_url": "unix:///"},
        {"redis_url": "unix:///run/a;b.sock"},
        {"redis_url": "unix:///run/redis.sock?db=x"},
        {"device": "tpu"},
        {"runtime": "onnx"},
        {"runtime": "openvino", "device": "cuda"},
        {"log_format": "xml"},
        {"max_pixels": 200_000_000},
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        load(**values)


def test_networks_come_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL_ALLOW_NETWORKS", "10.1.0.0/16, fd12::/64,127.0.0.2")

    networks = load().url_allow_networks

    assert networks == (ip_network("10.1.0.0/16"), ip_network("fd12::/64"), ip_network("127.0.0.2/32"))


def test_a_batch_is_kept_as_long_as_its_last_job_may_be() -> None:
    settings = load(queue_ttl=60, task_time_limit=100, result_ttl=1000, tombstone_ttl=5, retry_backoff_s=10)

    latest_start = 60 + 3 * (100 + 4 * 10)

    assert settings.batch_ttl == latest_start + (60 + 100 + 1000) + 60 + 5


def test_models_are_a_list_whose_names_differ() -> None:
    chosen = load(classify_model=" models/a , team/b@v1 ,").classify_model

    assert chosen == ("models/a", "team/b@v1")
    assert [public_name(model) for model in ("/srv/models/a", *chosen)] == ["a", "models/a", "team/b"]
    for bad in ("", " , ", "team/b@v1,team/b@v2", ",".join(f"model{number}" for number in range(9)), "a" * 201):
        with pytest.raises(ValidationError):
            load(classify_model=bad)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("app.api", "MAX_PIXELS", "many"),
        ("app.api", "CLASSIFY_MODEL", "a@1,a@2"),
        ("app.api", "ALLOW_URLS", "perhaps"),
        ("app.api", "URL_ALLOW_NETWORKS", "10.0.0.0/33"),
        ("app.api", "URL_ALLOW_NETWORKS", "10.1.0.0/16,10.0.0.1/8"),
        ("app.api", "URL_ALLOW_NETWORKS", "localhost"),
        ("app.worker.main", "WORKER_TASKS", "classify,clasify"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(module: str, name: str, value: str) -> None:
    started = subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, name: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert started.returncode == 2
    (line,) = started.stderr.splitlines()
    assert line.startswith(f"Setting {name}={value!r} cannot be used: ")


def test_the_example_lists_every_setting_with_its_default() -> None:
    listed = {}
    for line in (ROOT / ".env.example").read_text().splitlines():
        name, separator, value = line.removeprefix("# ").partition("=")
        if separator and name.isupper():
            listed[name] = value
    defaults = {name.upper(): _written(field.default) for name, field in Settings.model_fields.items()}

    assert listed == {**defaults, "WORKER_CONCURRENCY": ""}


def _written(default: object) -> str:
    """A default as the environment would hold it."""
    if isinstance(default, tuple):
        return ",".join(str(member) for member in default)
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)
