"""What `make bench` measures, one function for each part. Raw loop and service take turns, and medians are kept.

Between two machines, or two hours of one, times differ; ratios of what was measured in turns do not, or less.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.benchmarks.arithmetic import Spread, typical
from tests.benchmarks.loads import Load, Outcome, put
from tests.benchmarks.photos import Photo
from tests.benchmarks.raw_loop import RawLoop, Speed
from tests.benchmarks.service import MODEL_FUNCTION, PROCESSES, Service

CLIENTS = 16
#: Arrivals in an open loop, as shares of what the service can do.
SHARES = (0.5, 0.9, 1.5)


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    raw_s: float
    closed_s: float
    idle_s: float
    open_s: Mapping[float, float]


FULL = Plan(rounds=3, raw_s=5, closed_s=10, idle_s=6, open_s={0.5: 20, 0.9: 20, 1.5: 60})
#: Says whether everything works, and roughly how fast.
QUICK = Plan(rounds=1, raw_s=3, closed_s=5, idle_s=3, open_s={0.5: 4, 0.9: 4, 1.5: 6})


@dataclass(frozen=True)
class Closed:
    """Sixteen clients, each with one job at a time, beside the raw loop."""

    network: str
    runtime: str
    photo: str
    raw: Speed
    jobs_per_s: float
    served_to_raw: float
    submit: Spread | None
    status: Spread | None
    #: Submit to result, less the time that the raw loop takes for the picture.
    wait: Spread | None
    #: Milliseconds of processor time of a job, by process.
    cpu_ms: Mapping[str, float]
    commands: Mapping[str, float]
    redis_in_bytes: float
    redis_out_bytes: float

    @property
    def outside_ms(self) -> float:
        """Processor time of a job beside the model function, the client's left out."""
        return round(sum(self.cpu_ms[name] for name in PROCESSES), 2)


@dataclass(frozen=True)
class Idle:
    """One client with one job at a time, on a service that has nothing else to do."""

    raw_ms: float
    submit: Spread | None
    status: Spread | None
    #: Submit to result, less the raw time.
    wait: Spread | None


@dataclass(frozen=True)
class Open:
    """Jobs that arrive whatever became of those before."""

    share: float
    rate: float
    seconds: float
    accepted: int
    refused: Mapping[str, int]
    submit: Spread | None
    status: Spread | None
    #: Submit to result, less the raw time; not measured where jobs come faster than they can be done.
    wait: Spread | None
    #: How late the clients were, whose time is counted as the service's.
    lateness: Spread | None


def closed(service: Service, raw: RawLoop, photo: Photo, plan: Plan, *, network: str, clients: int = CLIENTS) -> Closed:
    """The service beside the raw loop."""
    speeds: list[Speed] = []
    outcomes: list[Outcome] = []
    costs: list[dict[str, Any]] = []
    for _ in range(plan.rounds):
        speeds.append(raw.measure(photo, plan.raw_s))
        before = service.read_meters()
        outcome = put(Load(service.port, photo.path, plan.closed_s, clients=clients, prefer=True))
        costs.append(service.read_meters().per_job(before, outcome.jobs))
        outcomes.append(outcome)
        if outcome.models != [raw.model]:
            raise RuntimeError(f"the raw loop runs {raw.model}, the service {outcome.models}")
    speed = _middle_of(speeds)
    cpu_ms = {name: median(cost["cpu_ms"][name] for cost in costs) for name in (*PROCESSES, MODEL_FUNCTION)}
    cpu_ms["client"] = median(outcome.client_cpu_s / outcome.jobs * 1000 for outcome in outcomes)
    names = {name for cost in costs for name in cost["commands"]}
    return Closed(
        network=network,
        runtime=f"{raw.model['runtime']} on {raw.model['device']}",
        photo=photo.title,
        raw=speed,
        jobs_per_s=median(outcome.jobs_per_s for outcome in outcomes),
        served_to_raw=round(
            median(outcome.jobs_per_s / each.images_per_s for outcome, each in zip(outcomes, speeds, strict=True)), 3
        ),
        submit=typical(outcome.submit for outcome in outcomes),
        status=typical(outcome.status for outcome in outcomes),
        wait=_less(typical(outcome.result for outcome in outcomes), speed.image_ms),
        cpu_ms={name: round(ms, 2) for name, ms in cpu_ms.items()},
        commands={name: round(median(cost["commands"].get(name, 0) for cost in costs), 2) for name in sorted(names)},
        redis_in_bytes=round(median(cost["redis_in_bytes"] for cost in costs)),
        redis_out_bytes=round(median(cost["redis_out_bytes"] for cost in costs)),
    )


def idle(service: Service, raw: RawLoop, photo: Photo, plan: Plan) -> Idle:
    """What one job costs beyond its work when nothing else is going on."""
    raw_ms, outcomes = [], []
    for _ in range(plan.rounds):
        raw_ms.append(raw.measure(photo, plan.raw_s / 2, processes=1).image_ms)
        outcomes.append(put(Load(service.port, photo.path, plan.idle_s, clients=1)))
    waits = [_less(outcome.result, ms) for outcome, ms in zip(outcomes, raw_ms, strict=True)]
    return Idle(
        raw_ms=median(raw_ms),
        submit=typical(outcome.submit for outcome in outcomes),
        status=typical(outcome.status for outcome in outcomes),
        wait=typical(waits),
    )


def open_loop(service: Service, photo: Photo, plan: Plan, *, capacity: float, raw_ms: float) -> list[Open]:
    """Arrivals at shares of `capacity`, in jobs a second; the last of them leaves the service with a queue."""
    found = []
    for share in SHARES:
        rate, follow = share * capacity, share < 1
        load = Load(service.port, photo.path, plan.open_s[share], rate=rate, follow=follow)
        outcome = put(load)
        found.append(
            Open(
                share=share,
                rate=round(rate, 1),
                seconds=load.seconds,
                accepted=outcome.jobs,
                refused=outcome.refused,
                submit=outcome.submit,
                status=outcome.status,
                wait=_less(outcome.result, raw_ms),
                lateness=outcome.lateness,
            )
        )
    return found


def _less(spread: Spread | None, ms: float) -> Spread | None:
    return spread and spread.less(ms)


def _middle_of(speeds: list[Speed]) -> Speed:
    def middle(of: Callable[[Speed], float]) -> float:
        return round(median(of(speed) for speed in speeds), 2)

    return Speed(
        images_per_s=middle(lambda speed: speed.images_per_s),
        image_ms=middle(lambda speed: speed.image_ms),
        cpu_ms=middle(lambda speed: speed.cpu_ms),
        stages_ms={name: middle(lambda speed, name=name: speed.stages_ms[name]) for name in speeds[0].stages_ms},  # type: ignore[misc]
    )
