"""Settings: the only reader of the environment.

Every setting is an environment variable of the same name in capitals, or a line of `.env` in the working directory.
`.env.example` lists them all.
"""

import math
import os
import sys
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url

#: What open jobs are kept longer than they need.
_SPARE_S = 60


@cache
def public_name(source: str) -> str:
    """What clients are told of a configured model: the hub id, or the folder without what lies above it."""
    folder = Path(source)
    return folder.name if folder.is_absolute() else source.partition("@")[0]


def split(value: object) -> object:
    """A list as the environment or a form holds it, its members separated by commas. What is no text stays as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _networks(value: object) -> object:
    """Parsed here, so that what is no network is told in one line and not in one for each kind of network."""
    parts = split(value)
    return tuple(map(ip_network, parts)) if isinstance(parts, list) else parts


def _distinct(models: tuple[str, ...]) -> tuple[str, ...]:
    names = [public_name(model) for model in models]
    if len(set(names)) < len(names):
        raise ValueError("two models have the same name, so that requests could not tell them apart")
    return models


Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1, le=30 * 86_400)]
#: NoDecode: pydantic-settings would want a list as JSON.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]
#: Every process of a worker holds all of them, and says so in one short line.
Models = Annotated[
    tuple[Annotated[str, Field(max_length=200)], ...],
    NoDecode,
    BeforeValidator(split),
    Field(min_length=1, max_length=8),
    AfterValidator(_distinct),
]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]


def _cores() -> int:
    """Processors this process may run on, which a container can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _socket(url: str) -> dict[str, Any]:
    """What a URL of a Unix socket says, by redis-py's names. Raises `ValueError`."""
    said: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    return said


class Settings(BaseSettings):
    """How this installation behaves. Times are in seconds, sizes in bytes unless the name says otherwise."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    #: The broker, the result backend and the registry; without it, `REDIS_PORT` on this machine.
    redis_url: str = ""
    #: Address that the local mode and the published compose ports listen on.
    bind: str = "127.0.0.1"
    api_port: Port = 8000
    #: Processes of the API, which share its port.
    api_processes: Annotated[int, Field(ge=1, le=64)] = 1
    flower_port: Port = 5555
    redis_port: Port = 6379

    #: Folders, or hub ids with an optional `@revision`; the first is what a request gets that names none.
    classify_model: Models = ("models/efficientnet-lite0",)
    detect_model: Models = ("models/nanodet-g",)
    #: `composer` is no folder: it makes a sentence of what the first two say.
    caption_model: Models = ("composer",)
    #: Token for private hub models.
    hf_token: str | None = None
    #: What runs networks that classify and detect; auto is OpenVINO on the CPU where a network suits it, else PyTorch.
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    storage_root: Path = Path("data")
    max_file_size: Annotated[int, Field(ge=1024, le=2**31)] = 10 * 2**20
    #: At most Pillow's own ceiling, past which it opens nothing.
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 50_000_000

    #: Whether workers fetch pictures from URLs.
    allow_urls: bool = False
    #: Networks that URLs may lead to although they are not public; comma-separated.
    url_allow_networks: Networks = ()

    max_batch_files: Annotated[int, Field(ge=1, le=1000)] = 100
    max_batch_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 100 * 2**20

    #: How long a result is kept after its job ended.
    result_ttl: Seconds = 86_400
    #: How long a job may wait for a start.
    queue_ttl: Seconds = 86_400
    #: How long an expired job still answers 410 instead of 404.
    tombstone_ttl: Seconds = 86_400

    #: Hard limit of one attempt; the soft one, which ends it in good order, is 10 s less.
    task_time_limit: Annotated[int, Field(ge=11, le=86_400)] = 300
    #: Further attempts after passing failures.
    task_max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    #: Delay before the first further attempt; it doubles, to four times this.
    retry_backoff_s: Annotated[float, Field(ge=0.01, le=3600)] = 60

    #: Deaths of its process, after which a job is given up.
    task_max_deliveries: Annotated[int, Field(ge=1, le=100)] = 3

    #: Jobs that may wait in one queue; more are refused.
    max_queue_depth: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    #: Room that uploads leave on the disk.
    min_free_disk: Annotated[int, Field(ge=0)] = 2**30

    #: The tasks that a worker takes jobs of; all, when there are none.
    worker_tasks: Names = ()
    worker_concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    #: Pictures that a network which classifies or detects is given at once, at most. Above 1, one process of a worker
    #: runs such networks, and those that run jobs wait for it.
    batch_max: Annotated[int, Field(ge=1, le=256)] = 1
    #: A process that has grown larger than this (resident memory, what it shares included) is replaced after its job.
    worker_max_memory: Annotated[int, Field(ge=64 * 2**20)] | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        if url and not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if url.startswith("unix://"):
            path = _socket(url).get("path", "/")
            # A semicolon would end the path for Celery.
            if urlsplit(url).hostname or path == "/" or ";" in path:
                raise ValueError("must be like unix:///run/redis.sock")
        return url

    @field_validator("batch_max")
    @classmethod
    def _is_possible(cls, pictures: int) -> int:
        if pictures > 1 and not hasattr(os, "memfd_create"):
            raise ValueError("batches need Linux")
        return pictures

    @field_validator("device")
    @classmethod
    def _is_of_the_runtime(cls, device: str, said: ValidationInfo) -> str:
        if device == "cuda" and said.data.get("runtime") == "openvino":
            raise ValueError("RUNTIME=openvino runs on the CPU")
        return device

    @property
    def broker_url(self) -> str:
        """Where Redis is."""
        return self.redis_url or f"redis://localhost:{self.redis_port}/0"

    @property
    def is_by_socket(self) -> bool:
        """Whether that is a Unix socket on this machine."""
        return self.broker_url.startswith("unix://")

    @property
    def celery_url(self) -> str:
        """The same in Celery's words, which for sockets are others than redis-py's."""
        if not self.is_by_socket:
            return self.broker_url
        said = _socket(self.broker_url)
        name, password = (quote(said.get(part, ""), safe="") for part in ("username", "password"))
        user = f"{name}:{password}@" if name or password else ""
        return f"redis+socket://{user}{quote(said['path'])}?virtual_host={said.get('db', 0)}"

    @property
    def soft_time_limit(self) -> int:
        """After so long, an attempt is asked to end; the limit itself ends it."""
        return self.task_time_limit - 10

    @property
    def needed_ttl(self) -> int:
        """What a job that has not ended is kept at least from its last start: a wait, its work and a result's life."""
        return self.queue_ttl + self.task_time_limit + self.result_ttl

    @property
    def open_ttl(self) -> int:
        """What it is kept from its submission: longer than it needs, so that a start that comes soon moves nothing."""
        return self.needed_ttl + _SPARE_S

    @property
    def batch_ttl(self) -> int:
        """How long a batch is kept: as long as the last of its jobs may be, through its wait and all its attempts."""
        between = self.task_time_limit + math.ceil(4 * self.retry_backoff_s)
        return self.queue_ttl + self.task_max_retries * between + self.open_ttl + self.tombstone_ttl

    @property
    def runs_batches(self) -> bool:
        """Whether networks are given pictures of several jobs at once."""
        return self.batch_max > 1

    @property
    def processes(self) -> int:
        """Processes of a worker that run jobs: one for each core, or enough to fill a batch while another is run."""
        return self.worker_concurrency or (2 * self.batch_max if self.runs_batches else _cores())

    @property
    def threads_per_process(self) -> int:
        """Threads that each of them may use, so that all of them together fill the cores once."""
        return max(1, _cores() // self.processes)

    @property
    def threads_per_network(self) -> int:
        """Threads that a network which classifies or detects may use: there is one for each process, or for all."""
        return _cores() if self.runs_batches else self.threads_per_process


@cache
def get_settings() -> Settings:
    """The settings of this process. Exits with one line for each setting that is out of range."""
    try:
        return Settings()
    except ValidationError as invalid:
        for error in invalid.errors():
            name = "_".join(str(part) for part in error["loc"]).upper()
            sys.stderr.write(f"Setting {name}={error['input']!r} cannot be used: {error['msg']}.\n")
        raise SystemExit(2) from None
