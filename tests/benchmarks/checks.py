"""What has to be true of the figures. Most are ratios, which another machine or a busy hour does not change much."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.parts import Closed, Idle, Open

BATCHED = "ViT-B/16, batches of 8"
#: Smallest share of the raw loop's speed, by network.
_MIN_SERVED = {"EfficientNet-Lite0": 0.65, BATCHED: 0.95}
_MAX_IDLE_MS = 10.0
_MAX_SUBMIT_RATIO = 5.0
_MAX_OUTSIDE_MS = 4.0
_MIN_PEER_RATIO = 3.0
#: With a core for each process of the raw loop, it has one whenever it wants one.
_MAX_BUSY_RATIO = 1.1


@dataclass(frozen=True)
class Check:
    """One of them."""

    name: str
    value: float
    limit: str
    met: bool


def at_least(name: str, value: float, limit: float) -> Check:
    """A figure that must not be smaller."""
    return Check(name, round(value, 2), f"≥ {limit:g}", value >= limit)


def at_most(name: str, value: float, limit: float) -> Check:
    """A figure that must not be larger."""
    return Check(name, round(value, 2), f"≤ {limit:g}", value <= limit)


def below(name: str, value: float, limit: float) -> Check:
    """A figure that must be smaller."""
    return Check(name, round(value, 2), f"< {limit:g}", value < limit)


def of_closed(found: Sequence[Closed]) -> list[Check]:
    """Of the first photo of each network."""
    firsts = {each.network: each for each in reversed(found)}
    checks = [
        at_least(f"service ÷ raw loop, {name}", firsts[name].served_to_raw, limit)
        for name, limit in _MIN_SERVED.items()
        if name in firsts
    ]
    if "EfficientNet-Lite0" in firsts:
        outside_ms = firsts["EfficientNet-Lite0"].outside_ms
        checks.append(below("processor time of a job outside the model function, ms", outside_ms, _MAX_OUTSIDE_MS))
    on_processor = [each.raw for each in found if each.runtime.endswith(" on cpu")]
    if on_processor:  # a GPU is waited for
        busy = max(raw.image_ms / raw.cpu_ms for raw in on_processor)
        checks.append(at_most("nothing else ran: raw loop, time ÷ processor time", busy, _MAX_BUSY_RATIO))
    return checks


def of_idle(found: Idle) -> list[Check]:
    """Of one job at a time."""
    if found.wait is None:
        raise ValueError("no job ended while the service was idle")
    return [below("idle: submit to result less the raw time, median, ms", found.wait.p50_ms, _MAX_IDLE_MS)]


def of_open(found: Sequence[Open], calm: Idle) -> list[Check]:
    """Of arrivals beyond what can be done."""
    last = found[-1]
    if last.submit is None or calm.submit is None:
        raise ValueError("no job was accepted")
    ratio = last.submit.p99_ms / calm.submit.p50_ms
    unexpected = sum(count for each in found for code, count in each.refused.items() if code != "queue_full")
    return [
        at_most(f"{last.share:g} of capacity: submit p99 ÷ idle submit p50", ratio, _MAX_SUBMIT_RATIO),
        at_most("jobs refused but by queue_full", unexpected, 0),
    ]


def of_peer(name: str, ratio: float) -> Check:
    """Of what people would pick instead."""
    return at_least(f"service ÷ {name}", ratio, _MIN_PEER_RATIO)
