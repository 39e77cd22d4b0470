"""The service as `make up` runs it, with processes, ports and a folder of its own: started, watched, gone afterwards.

It runs in an empty folder, so that no `.env` of this checkout and no data of an installation has a part in it.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import meter
from tests.benchmarks.machine import children_of, cores, cpu_s
from tests.processes import ROOT, Installation, Process

#: Settings of every process measured: the models that ship, found from another folder, and the code of this one.
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "CLASSIFY_MODEL": str(ROOT / "models" / "efficientnet-lite0"),
    "DETECT_MODEL": str(ROOT / "models" / "nanodet-g"),
}
#: What everything outside the model function takes is read of these, in this order.
PROCESSES = ("API", "worker, main process", "worker processes", "Redis")
MODEL_FUNCTION = "model function"
_LOG_TAIL = 4000


@dataclass(frozen=True)
class Meters:
    """Readings since the service began."""

    #: Seconds of processor time, by process; those of the model function are told apart from its processes'.
    cpu_s: Mapping[str, float]
    #: Calls of Redis commands, by their name; those that scripts make are among them.
    commands: Mapping[str, int]
    redis_in_bytes: int
    redis_out_bytes: int

    def per_job(self, before: "Meters", jobs: int) -> dict[str, Any]:
        """What a job took since another reading: milliseconds of processor time, and Redis's commands and bytes."""
        commands = {name: (count - before.commands.get(name, 0)) / jobs for name, count in self.commands.items()}
        return {
            "cpu_ms": {name: (self.cpu_s[name] - before.cpu_s[name]) / jobs * 1000 for name in self.cpu_s},
            "commands": {name: count for name, count in commands.items() if count >= 0.01},
            "redis_in_bytes": (self.redis_in_bytes - before.redis_in_bytes) / jobs,
            "redis_out_bytes": (self.redis_out_bytes - before.redis_out_bytes) / jobs,
        }


class Service:
    """One Redis, one API and one worker with a process for each core."""

    def __init__(self, installation: Installation, *, meters: Path) -> None:
        self._installation = installation
        self._meters = meters
        self._api = installation.start_api("app.api")
        worker = "tests.benchmarks.metered_worker"
        self._worker = installation.start_worker(worker, name="bench", **{meter.FOLDER: str(meters)})
        installation.wait_until_ready()
        self._redis = installation.redis

    @property
    def port(self) -> int:
        """Of the API, on this machine."""
        return self._installation.port

    def read_meters(self) -> Meters:
        """What everything has taken so far."""
        with contextlib.closing(self._redis.client()) as client:
            stats, commands = client.info("stats"), client.info("commandstats")
        children = children_of(self._worker.pid)
        in_networks_s = sum(cpu_s(child) for child in children if _runs_batches(child))
        function_s = meter.read(self._meters) + in_networks_s
        return Meters(
            cpu_s={
                "API": _with_children(self._api),
                "worker, main process": cpu_s(self._worker.pid),
                "worker processes": sum(map(cpu_s, children)) - function_s,
                MODEL_FUNCTION: function_s,
                "Redis": cpu_s(self._redis.process.pid),
            },
            commands={name.removeprefix("cmdstat_"): entry["calls"] for name, entry in commands.items()},
            redis_in_bytes=stats["total_net_input_bytes"],
            redis_out_bytes=stats["total_net_output_bytes"],
        )


@contextlib.contextmanager
def running(folder: Path, *, settings: Mapping[str, str]) -> Iterator[Service]:
    """The service, ready. If anything fails, the ends of its logs go to standard error."""
    source, meters = folder / "empty", folder / "meters"
    source.mkdir()
    meters.mkdir()
    counted = {"WORKER_CONCURRENCY": str(cores()), **settings}
    installation = Installation(folder, source=source, by_socket=True, **counted)
    try:
        yield Service(installation, meters=meters)
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-_LOG_TAIL:]}\n")
        raise
    finally:
        installation.close()


def _runs_batches(process_id: int) -> bool:
    """Whether it is a network process, all of whose time is the model function's."""
    return b"app.worker.batching" in Path(f"/proc/{process_id}/cmdline").read_bytes()


def _with_children(process: Process) -> float:
    return cpu_s(process.pid) + sum(map(cpu_s, children_of(process.pid)))
