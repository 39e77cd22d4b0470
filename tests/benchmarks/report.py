"""What was found, for people: tables that are Markdown as well, so that they go into a README as they are."""

from collections.abc import Mapping, Sequence

from tests.benchmarks.arithmetic import Spread
from tests.benchmarks.checks import Check
from tests.benchmarks.parts import Closed, Idle, Open
from tests.benchmarks.raw import STAGES
from tests.benchmarks.service import MODEL_FUNCTION, PROCESSES

Row = Sequence[object]


def heading(machine: Mapping[str, str]) -> str:
    """When and on what."""
    return f"{machine['date']}, {machine['machine']}\n{machine['versions']}"


def closed_tables(found: Sequence[Closed]) -> str:
    """Speed, then what a job costs."""
    speeds = [
        (
            each.network,
            each.photo,
            each.runtime,
            each.raw.images_per_s,
            each.jobs_per_s,
            each.served_to_raw,
            _told(each.submit),
            _told(each.status),
            _told(each.wait),
        )
        for each in found
    ]
    costs = [
        (
            each.network,
            each.photo.partition(",")[0],
            *(each.cpu_ms[name] for name in PROCESSES),
            each.outside_ms,
            each.cpu_ms[MODEL_FUNCTION],
            each.cpu_ms["client"],
        )
        for each in found
    ]
    stages = [
        (
            each.network,
            each.photo.partition(",")[0],
            *(each.raw.stages_ms[name] for name in STAGES),
            each.raw.image_ms,
        )
        for each in found
    ]
    traffic = [
        (
            each.network,
            each.photo.partition(",")[0],
            round(sum(each.commands.values()), 1),
            each.redis_in_bytes,
            each.redis_out_bytes,
            ", ".join(f"{name} {count:g}" for name, count in _most(each.commands)),
        )
        for each in found
    ]
    return "\n\n".join(
        (
            "Closed loop of 16 clients; milliseconds are p50 / p99",
            table(
                (
                    "network",
                    "photo",
                    "runtime",
                    "raw images/s",
                    "jobs/s",
                    "served ÷ raw",
                    "submit",
                    "status",
                    "result less raw",
                ),
                speeds,
            ),
            "Processor time of a job, milliseconds",
            table(("network", "photo", *_outside(), "together", MODEL_FUNCTION, "client"), costs),
            "The model function, milliseconds of one picture",
            table(("network", "photo", *STAGES, "together"), stages),
            "Redis, for each job; commands within scripts are counted too",
            table(("network", "photo", "commands", "bytes in", "bytes out", "most of them"), traffic),
        )
    )


def idle_table(found: Idle) -> str:
    """One job at a time."""
    row = (found.raw_ms, _told(found.submit), _told(found.status), _told(found.wait))
    names = ("raw", "submit", "status", "result less raw")
    return f"Idle, one client with one job at a time; milliseconds are p50 / p99\n\n{table(names, [row])}"


def open_table(found: Sequence[Open]) -> str:
    """Arrivals at shares of capacity."""
    rows = [
        (
            f"{each.share:g}",
            each.rate,
            f"{each.seconds:g}",
            each.accepted,
            ", ".join(f"{code} {count}" for code, count in each.refused.items()) or "none",
            _told(each.submit),
            _told(each.status),
            _told(each.wait),
            _told(each.lateness),
        )
        for each in found
    ]
    names = (
        "of capacity",
        "jobs/s",
        "seconds",
        "accepted",
        "refused",
        "submit",
        "status",
        "result less raw",
        "clients' lateness",
    )
    return f"Open loop, random arrivals; milliseconds are p50 / p99 from when a job is due\n\n{table(names, rows)}"


def check_table(checks: Sequence[Check]) -> str:
    """What has to be true."""
    rows = [(each.name, each.value, each.limit, "yes" if each.met else "NO") for each in checks]
    return table(("must show", "is", "limit", "met"), rows)


def table(names: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table with its columns in line."""
    cells = [list(names), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _outside() -> tuple[str, ...]:
    return tuple("worker processes, rest" if name == "worker processes" else name for name in PROCESSES)


def _most(commands: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(commands.items(), key=lambda entry: -entry[1])[:6]


def _told(spread: Spread | None) -> str:
    return f"{spread.p50_ms:.1f} / {spread.p99_ms:.1f}" if spread else ""
