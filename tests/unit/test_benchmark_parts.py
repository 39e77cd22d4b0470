"""How the parts of `make bench` put together what was measured, and what is said of it."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.benchmarks import checks, parts, report
from tests.benchmarks.__main__ import Found
from tests.benchmarks.arithmetic import Spread
from tests.benchmarks.loads import Load, Outcome
from tests.benchmarks.parts import QUICK, Closed, Idle, Open
from tests.benchmarks.photos import Photo
from tests.benchmarks.raw_loop import Speed
from tests.benchmarks.service import MODEL_FUNCTION, PROCESSES, Meters
from tests.processes import PHOTOS

DOG = Photo("dog.jpg", PHOTOS / "dog.jpg", 768, 576)
MODEL = {"runtime": "torch", "device": "cpu"}
STAGES_MS = {"decode": 2.0, "preprocess": 1.0, "predict": 7.0, "postprocess": 0.0}


class Raw:
    """A raw loop that does so many images a second, each time a different number."""

    def __init__(self, *speeds: float) -> None:
        self.model = MODEL
        self._speeds = iter(speeds)

    def measure(self, photo: Photo, seconds: float, *, processes: int | None = None) -> Speed:
        return Speed(next(self._speeds), image_ms=20.0, cpu_ms=10.0, stages_ms=STAGES_MS)


class Served:
    """A service that takes 1, 2, 4 and 3 ms of the processors for each of 100 jobs, from one reading to the next."""

    port = 1

    def __init__(self) -> None:
        self._readings = 0

    def read_meters(self) -> Meters:
        passed, self._readings = self._readings / 10, self._readings + 1
        costs = {**dict(zip(PROCESSES, (1, 2, 4, 3), strict=True)), MODEL_FUNCTION: 11}
        return Meters({name: ms * passed for name, ms in costs.items()}, {"get": int(500 * passed * 10)}, 0, 0)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What the next loads come to, in order."""
    found: list[Outcome] = []
    coming: Iterator[Outcome] = iter(found)

    def put(load: Load) -> Outcome:
        return next(coming)

    monkeypatch.setattr(parts, "put", put)
    return found


def outcome(jobs_per_s: float, result_ms: float = 50) -> Outcome:
    spread = Spread(5, 9)
    return Outcome(100, jobs_per_s, 0.05, submit=spread, status=spread, result=Spread(result_ms, 90), models=[MODEL])


def closed(outcomes: list[Outcome]) -> Closed:
    outcomes += [outcome(80), outcome(70), outcome(10)]
    plan = replace(QUICK, rounds=3)
    service, raw = cast("Any", Served()), cast("Any", Raw(100, 100, 10))
    return parts.closed(service, raw, DOG, plan, network="EfficientNet-Lite0")


def test_what_takes_turns_is_compared_turn_by_turn(outcomes: list[Outcome]) -> None:
    found = closed(outcomes)
    assert found.served_to_raw == 0.8  # of 0.8, 0.7 and, when the machine was busy with something else, 1.0
    assert (found.raw.images_per_s, found.jobs_per_s) == (100, 70)
    assert found.wait == Spread(30, 70)


def test_the_model_function_and_the_client_are_left_out_of_what_a_job_costs(outcomes: list[Outcome]) -> None:
    found = closed(outcomes)
    assert [found.cpu_ms[name] for name in PROCESSES] == pytest.approx([1, 2, 4, 3])
    assert (found.cpu_ms[MODEL_FUNCTION], found.cpu_ms["client"]) == (11, 0.5)
    assert found.outside_ms == 10
    assert found.commands == {"get": 5}


def test_what_runs_another_runtime_is_not_compared(outcomes: list[Outcome]) -> None:
    outcomes.append(replace(outcome(80), models=[MODEL, {**MODEL, "runtime": "openvino"}]))
    with pytest.raises(RuntimeError, match="openvino"):
        parts.closed(cast("Any", Served()), cast("Any", Raw(100)), DOG, QUICK, network="EfficientNet-Lite0")


def test_idle_and_open_loops_leave_the_raw_time_out(outcomes: list[Outcome]) -> None:
    outcomes += [outcome(10, result_ms=25), outcome(40), outcome(70), replace(outcome(90), result=None)]
    service, raw = cast("Any", SimpleNamespace(port=1)), cast("Any", Raw(50))
    calm = parts.idle(service, raw, DOG, QUICK)
    assert calm.wait == Spread(5, 70)
    found = parts.open_loop(service, DOG, QUICK, capacity=100, raw_ms=20)
    assert [each.rate for each in found] == [50, 90, 150]
    assert [each.wait for each in found] == [Spread(30, 70), Spread(30, 70), None]


def test_what_must_be_shown_is_judged(outcomes: list[Outcome]) -> None:
    lite0 = closed(outcomes)
    vit = replace(lite0, network=checks.BATCHED, served_to_raw=0.94)
    calm = Idle(20, submit=Spread(2, 4), status=None, wait=Spread(9.9, 30))
    late = Open(1.5, 150, 60, 100, {"queue_full": 3}, Spread(4, 10), None, None, None)
    found = Found([lite0, replace(lite0, photo="larger", served_to_raw=0.1), vit], calm, [late])
    assert [each.met for each in found.checks()] == [True, False, False, False, True, True, True]
    (ratio, refused) = checks.of_open([replace(late, submit=Spread(4, 10.1), refused={"disk_full": 1})], calm)
    assert not ratio.met
    assert not refused.met


def test_a_busy_machine_is_noticed(outcomes: list[Outcome]) -> None:
    found = closed(outcomes)
    calm = replace(found, raw=replace(found.raw, image_ms=10.9))
    on_gpu = replace(found, runtime="torch on cuda")
    assert [checks.of_closed([each])[-1].met for each in (found, calm)] == [False, True]
    assert len(checks.of_closed([on_gpu])) == len(checks.of_closed([calm])) - 1


def test_the_tables_say_it(outcomes: list[Outcome]) -> None:
    calm = Idle(20, submit=Spread(2, 4), status=None, wait=Spread(9.9, 30))
    text = "\n".join(Found([closed(outcomes)], calm).tables())
    assert "| EfficientNet-Lite0 | dog.jpg, 768 by 576, 0.16 MB | torch on cpu | 100" in text
    assert "9.9 / 30.0" in text
    assert "| NO" in text
    assert report.heading({"date": "today", "machine": "this", "versions": "x 1"}) == "today, this\nx 1"
