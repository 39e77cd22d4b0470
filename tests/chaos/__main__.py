"""`make chaos JOBS=500 SEED=1`: put the service under load, make things fail, and see whether every promise is kept.

start all → clients submit and follow, while faults happen → wait until every job has ended → look at all of them again
and do the books → erase them, and see what stays. The exit status is 1 if a promise was broken; then the logs, Redis's
file and the records stay in a folder that is named.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from tests.chaos.faults import Faults
from tests.chaos.kinds import Kind, draw_faults
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import leftovers, records
from tests.chaos.load import Clients
from tests.chaos.orders import Request, draw_requests
from tests.chaos.recovery import Ends, Recovery
from tests.chaos.report import Report
from tests.chaos.service import Service, service

#: After the last fault and the last submission, everything has to have ended within this time.
_SETTLE_S = 120


def main() -> int:
    """Run once. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", type=Kind, nargs="+", default=list(Kind), choices=list(Kind), help="of faults; all")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="darkroom-chaos-"))
    with service(folder) as running:
        report = asyncio.run(_run(running, jobs=arguments.jobs, kinds=arguments.kinds, seed=arguments.seed))
    print(report.table())
    broken = bool(report.failures())
    if broken:
        print(f"\nLogs and records: {folder}")
    else:
        shutil.rmtree(folder)
    print(report.line())
    return int(broken)


async def _run(running: Service, *, jobs: int, kinds: Sequence[Kind], seed: int) -> Report:
    began, rng = time.monotonic(), random.Random(seed)
    requests, drawn = draw_requests(jobs, rng), draw_faults(jobs, kinds, rng)
    ledger = Ledger()
    recovery, ends = Recovery(running), Ends(running)

    def progress() -> float:
        return len(ledger.promises) / jobs

    causing = Faults(running, drawn, progress=progress, recovery=recovery, seed=rng.getrandbits(32))
    clients = Clients(ledger, running.addresses, rng=rng, may_submit=lambda: progress() <= causing.reached)
    for thread in (recovery, ends, causing):
        thread.start()
    settled = asyncio.Event()
    following = asyncio.create_task(clients.follow(until=settled))
    await clients.submit_all(requests)
    await asyncio.to_thread(causing.join)
    try:
        await asyncio.to_thread(running.wait_until_ready)
    except AssertionError as error:
        ledger.surprises.append(f"after the last fault {error}")
    with contextlib.closing(running.redis.client()) as client:
        await _settle(client, ledger)
        settled.set()
        await following
        await clients.look_again()
        found = await asyncio.to_thread(records, client)
        (running.folder / "records.json").write_text(json.dumps(found, indent=1))
        books = ledger.reconcile(ends.counts, _by_filename(found), _unended(found), _keyed(requests))
        await clients.erase_all(found)
        stays = await asyncio.to_thread(leftovers, running, client)
    await clients.close()
    return Report(
        jobs=jobs,
        ledger=ledger,
        books=books,
        kills={kind: causing.done[kind] for kind in kinds},
        longest_recovery_s=recovery.longest_s,
        late=recovery.late,
        took_s=time.monotonic() - began,
        surprises=[*causing.surprises, *ledger.surprises],
        leftovers=stays,
    )


async def _settle(client: redis.Redis, ledger: Ledger) -> None:
    """Wait until every job has ended: those that were promised, and those whose acceptance no client heard of."""
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline:
        if not ledger.open and not _unended(await asyncio.to_thread(records, client)):
            return
        await asyncio.sleep(0.5)


def _unended(found: dict[str, dict[str, str]]) -> set[str]:
    return {job_id for job_id, record in found.items() if "finished_at" not in record}


def _by_filename(found: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for job_id, record in found.items():
        names.setdefault(record.get("filename", ""), []).append(job_id)
    return names


def _keyed(requests: list[Request]) -> set[int]:
    return {order.number for request in requests if request.key for order in request.orders}


if __name__ == "__main__":
    sys.exit(main())
