"""A load on a server, and what came of it. The clients run in a process of their own, `loadgen`."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.arithmetic import Spread
from tests.processes import ROOT

#: What a load may take beyond its time: the jobs under way at its end, and a queue that it has filled.
_PATIENCE_S = 300


@dataclass(frozen=True)
class Load:
    """What is asked of a server for so long: by clients that wait for their jobs, or by jobs that wait for nobody."""

    port: int
    photo: Path
    seconds: float
    #: Closed loop: this many clients, each with one job at a time. 0 for an open loop.
    clients: int = 0
    #: Open loop: jobs a second, which arrive at random. 0 for a closed loop.
    rate: float = 0
    #: Whether a job is followed to its result, by waiting for it.
    follow: bool = True
    #: Whether most submissions wait for their result themselves, as those of a synchronous server do (`Prefer: wait`).
    prefer: bool = False
    target: str = "/classify"
    #: Name of the form's part with the photo.
    part: str = "file"
    #: The first seconds, which count for nothing.
    warm_s: float = 1
    seed: int = 1

    def to_json(self) -> str:
        """For the process that makes it."""
        return json.dumps({**asdict(self), "photo": str(self.photo)})

    @classmethod
    def from_json(cls, text: str) -> "Load":
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "photo": Path(values["photo"])})


@dataclass(frozen=True)
class Outcome:
    """What came of it. Times are those of the clients."""

    #: Jobs that were answered with a result, or, if they were not followed, accepted.
    jobs: int
    #: Of them, those that ended in the time that counts, by the second.
    jobs_per_s: float
    #: What all of it took of the processors.
    client_cpu_s: float
    #: From the moment a job is due to its acceptance.
    submit: Spread | None = None
    #: A status read, of one job in eight. Where submissions are to wait, only these jobs are submitted without.
    status: Spread | None = None
    #: From the moment a job is due to its result.
    result: Spread | None = None
    #: How late the clients themselves were in an open loop.
    lateness: Spread | None = None
    #: Jobs that were not accepted, by the error's code.
    refused: Mapping[str, int] = field(default_factory=dict)
    #: The models that the results name.
    models: list[Mapping[str, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """What the process that made the load printed."""
        values: dict[str, Any] = json.loads(text)
        for name in ("submit", "status", "result", "lateness"):
            values[name] = values[name] and Spread(**values[name])
        return cls(**values)


def put(load: Load) -> Outcome:
    """Put a load on a server. Raises `RuntimeError` with what the clients said if they could not go on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.loadgen"],
        input=load.to_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=load.seconds + _PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load was broken off: {done.stderr.strip()[-2000:]}")
    return Outcome.from_json(done.stdout)
