"""The benchmark's own arithmetic: percentiles, what is typical of several rounds, when an open loop's jobs arrive."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """How long something took: half of the time no longer than this, and all but one time in a hundred."""

    p50_ms: float
    p99_ms: float

    def less(self, ms: float) -> "Spread":
        """The same when this much of it is no concern."""
        return Spread(round(self.p50_ms - ms, 2), round(self.p99_ms - ms, 2))


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that this share of them, 0 to 1, does not exceed (nearest rank).

    Raises `ValueError` if there are none.
    """
    if not values:
        raise ValueError("there is no percentile of nothing")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(seconds: Sequence[float]) -> Spread | None:
    """The spread of durations in seconds; None if there are none."""
    if not seconds:
        return None
    return Spread(round(percentile(seconds, 0.5) * 1000, 2), round(percentile(seconds, 0.99) * 1000, 2))


def typical(spreads: Iterable[Spread | None]) -> Spread | None:
    """The medians of several rounds' spreads; None if no round has one."""
    found = [each for each in spreads if each]
    if not found:
        return None
    return Spread(median(each.p50_ms for each in found), median(each.p99_ms for each in found))


def arrivals(*, rate: float, seconds: float, seed: int) -> list[float]:
    """Moments, in seconds from the start and in order, at which `rate` jobs a second arrive at random (Poisson)."""
    rng, moments, now = random.Random(seed), [], 0.0
    while (now := now + rng.expovariate(rate)) < seconds:
        moments.append(now)
    return moments
