"""The figures as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no window: before pyplot is imported
from matplotlib import pyplot as plt

from tests.benchmarks.parts import Closed, Open
from tests.benchmarks.service import PROCESSES

_RAW, _SERVED, _OTHER = "#b0b7c3", "#2f6db5", "#d08a3c"
_PARTS = ("#2f6db5", "#79a7d9", "#3d8f6f", "#c24f4f")


def draw(path: Path, *, closed: Sequence[Closed], arrivals: Sequence[Open], machine: Mapping[str, str]) -> None:
    """Raw and served, what a job costs, and the latency of a submission under load."""
    figure, (speed, cost, latency) = plt.subplots(1, 3, figsize=(16, 4.6), width_ratios=(3, 2, 2), layout="constrained")
    _speeds(speed, closed)
    _costs(cost, [each for each in closed if each.network == closed[0].network])
    _latencies(latency, arrivals)
    figure.suptitle(f"Darkroom, {machine['date']}, {machine['machine']}", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_peers(path: Path, speeds: Mapping[str, float], machine: Mapping[str, str]) -> None:
    """Jobs a second, side by side."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    bars = axes.barh(list(speeds), list(speeds.values()), color=[_RAW, _SERVED, _OTHER, _OTHER][: len(speeds)])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("EfficientNet-Lite0, dog.jpg, 16 clients: pictures a second")
    axes.margins(x=0.1)
    figure.suptitle(f"{machine['date']}, {machine['machine']}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _speeds(axes: Any, closed: Sequence[Closed]) -> None:
    places = range(len(closed))
    axes.bar(
        [place - 0.2 for place in places], [each.raw.images_per_s for each in closed], 0.4, color=_RAW, label="raw"
    )
    served = axes.bar(
        [place + 0.2 for place in places], [each.jobs_per_s for each in closed], 0.4, color=_SERVED, label="served"
    )
    axes.bar_label(served, [f"{each.served_to_raw:.2f}" for each in closed], fontsize=9)
    labels = [f"{each.network},{each.photo.partition(',')[0]}".replace(", ", ",").replace(",", "\n") for each in closed]
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_ylabel("pictures a second")
    axes.set_title("Closed loop of 16 clients (figure: served ÷ raw)")
    axes.legend()


def _costs(axes: Any, closed: Sequence[Closed]) -> None:
    photos = [each.photo.partition(",")[0] for each in closed]
    floor = [0.0] * len(closed)
    for name, colour in zip(PROCESSES, _PARTS, strict=True):
        values = [max(0.0, each.cpu_ms[name]) for each in closed]
        axes.bar(photos, values, 0.5, bottom=floor, color=colour, label=name)
        floor = [low + value for low, value in zip(floor, values, strict=True)]
    axes.set_ylabel("processor time of a job, ms")
    axes.set_title("Beside the model function")
    axes.margins(y=0.35)
    axes.legend(fontsize=8, loc="upper left")


def _latencies(axes: Any, arrivals: Sequence[Open]) -> None:
    spreads = [(f"{each.share:g}", each.submit) for each in arrivals if each.submit]
    shares = [share for share, _ in spreads]
    axes.plot(shares, [submit.p50_ms for _, submit in spreads], marker="o", color=_SERVED, label="p50")
    axes.plot(shares, [submit.p99_ms for _, submit in spreads], marker="o", color=_OTHER, label="p99")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("arrivals, share of what the service can do")
    axes.set_ylabel("submit, ms")
    axes.set_title("Open loop of random arrivals")
    axes.legend()
