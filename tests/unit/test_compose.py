"""The compose file, as far as it can be seen without an engine."""

import re

from app.api.draining import FINISH_S, NOTICE_S
from app.broker import SOFT_SHUTDOWN_S
from app.config import Settings
from tests.processes import ROOT

COMPOSE = (ROOT / "docker" / "docker-compose.yml").read_text()
#: Where the service listens and stores is the containers' own affair; the last goes to the worker alone.
NOT_PASSED_TO_ALL = {"BIND", "API_PORT", "FLOWER_PORT", "REDIS_PORT", "STORAGE_ROOT", "HF_TOKEN"}


def test_every_setting_reaches_the_containers() -> None:
    block = COMPOSE.partition("x-settings: &settings\n")[2].partition("\n\n")[0]

    passed = set(re.findall(r"^  ([A-Z_]+):", block, re.MULTILINE))

    assert passed == {name.upper() for name in Settings.model_fields} - NOT_PASSED_TO_ALL
    assert "HF_TOKEN:" in COMPOSE


def test_nothing_is_published_beyond_this_machine_unless_said_so_and_redis_never() -> None:
    ports = re.findall(r"ports: \[(.*)\]", COMPOSE)

    assert ports == ['"${BIND:-127.0.0.1}:${API_PORT:-8000}:8000"', '"${BIND:-127.0.0.1}:${FLOWER_PORT:-5555}:5555"']


def test_a_stopping_worker_is_given_its_grace() -> None:
    (grace,) = re.findall(r"stop_grace_period: (\d+)s.*running jobs", COMPOSE)

    assert int(grace) >= SOFT_SHUTDOWN_S + 10


def test_a_stopping_api_is_given_its_grace() -> None:
    (grace,) = re.findall(r"stop_grace_period: (\d+)s.*open requests", COMPOSE)

    assert int(grace) >= NOTICE_S + FINISH_S + 5
