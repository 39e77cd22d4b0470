"""What is measured on, and what processes have taken of its processors (Linux, proc(5))."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

#: What a figure may depend on.
_PACKAGES = ("torch", "openvino", "celery", "redis", "uvicorn", "pillow", "simplejpeg")
_TICKS = os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def describe(*packages: str) -> dict[str, str]:
    """The date, the kind of machine, and the versions that matter, with those of `packages`."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cores()} cores of {_processor()}, {_memory_gib()} GiB, {platform.system()}",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in (*_PACKAGES, *packages)),
    }


def cpu_s(process_id: int) -> float:
    """Seconds of processor time of a process, and of those of its children that have ended."""
    # The name, in parentheses, may hold spaces.
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def children_of(process_id: int) -> list[int]:
    """The processes that any thread of a process has started and that still run, with theirs."""
    found = []
    for listed in Path(f"/proc/{process_id}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *children_of(child)]
    return found


def _processor() -> str:
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name", platform.machine())
    flags = facts.get("flags", "").split()
    special = [known for known in ("avx512f", "avx512_bf16", "amx_bf16") if known in flags]
    return f"{name} ({', '.join(special)})" if special else name


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
