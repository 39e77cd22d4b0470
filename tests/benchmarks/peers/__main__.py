"""`make bench-peers`: the service beside what people would pick instead, with the same network, photo and clients.

our service, the raw loop and every peer start → they take turns → a table, JSON and a chart. A peer is stopped while it
is not its turn, so that it takes nothing from the others. The exit status is 1 if measuring failed, or, with --check,
if a ratio was missed.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx

from tests.benchmarks import chart, checks, machine, report
from tests.benchmarks.__main__ import RESULTS, TRIES
from tests.benchmarks.loads import Load, put
from tests.benchmarks.parts import CLIENTS
from tests.benchmarks.peers.environments import PEERS, Peer
from tests.benchmarks.photos import Photo, photos
from tests.benchmarks.raw_loop import RawLoop, raw_loop
from tests.benchmarks.service import SETTINGS, Service, running
from tests.processes import ROOT, Process, free_port, wait_for

SERVICE, RAW = "Darkroom", "raw loop"


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float


FULL, QUICK = Plan(rounds=5, seconds=6), Plan(rounds=1, seconds=5)


class Server:
    """A peer that runs, or is halted."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.name, self.port = peer.name, free_port()
        filled = [part.format(port=self.port, workers=machine.cores()) for part in peer.command]
        environment = {
            "WORKERS": str(machine.cores()),
            "OMP_NUM_THREADS": "1",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(folder / "bentoml"),
        }
        argv = [str(peer.bin / filled[0]), *filled[1:]]
        self._process = Process(argv, log=folder / f"{peer.name}.log", environment=environment, cwd=ROOT)

    def answers(self, photo: Photo) -> bool:
        """Whether it has loaded, and classifies. Raises `AssertionError` if it has ended."""
        assert self._process.running, f"{self.name} has ended: {self._process.log.read_text()[-2000:]}"
        with contextlib.suppress(httpx.TransportError):
            files = {"file": ("photo.jpg", photo.path.read_bytes(), "image/jpeg")}
            answer = httpx.post(f"http://127.0.0.1:{self.port}/predict", files=files, timeout=60)
            return answer.status_code == 200 and len(answer.json()["predictions"]) == 5
        return False

    @contextlib.contextmanager
    def taking_its_turn(self) -> Iterator[None]:
        """Let it run meanwhile."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.halt()

    def halt(self) -> None:
        """Let it do nothing."""
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """End it and all it started."""
        self._signal(signal.SIGKILL)
        self._process.kill()

    def _signal(self, number: int) -> None:
        # Not by their group: a peer may put its workers into others.
        for process_id in (self._process.pid, *machine.children_of(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(process_id, number)


def main() -> int:
    """Measure. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and rough, and kept elsewhere")
    parser.add_argument("--check", action="store_true", help="fail if a ratio is missed")
    arguments = parser.parse_args()
    folder = TRIES if arguments.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    for peer in PEERS:
        peer.install()
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as temporary:
        runtime, rounds = _measure(Path(temporary), QUICK if arguments.quick else FULL)
    ratios = {peer.name: median(each[SERVICE] / each[peer.name] for each in rounds) for peer in PEERS}
    speeds = {name: round(median(each[name] for each in rounds), 1) for name in rounds[0]}
    verdicts = [checks.of_peer(name, ratio) for name, ratio in ratios.items()]
    about = machine.describe()
    rows = [(name, speed, _ratio_to(name, rounds)) for name, speed in speeds.items()]
    print(report.heading(about))
    print(f"\nEfficientNet-Lite0 ({runtime}), dog.jpg, {CLIENTS} clients, {machine.cores()} processes of one thread\n")
    print(report.table(("what", "pictures/s", f"{SERVICE} ÷ this"), rows))
    print(f"\n{report.check_table(verdicts)}")
    figures = {**about, "runtime": runtime, "rounds": rounds, "checks": [asdict(each) for each in verdicts]}
    (folder / "peers.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    chart.draw_peers(folder / "peers.png", speeds, about)
    print(f"\nFigures and chart: {folder}")
    return int(arguments.check and not all(each.met for each in verdicts))


def _ratio_to(name: str, rounds: Sequence[dict[str, float]]) -> str:
    return f"{median(each[SERVICE] / each[name] for each in rounds):.2f}"


def _measure(folder: Path, plan: Plan) -> tuple[str, list[dict[str, float]]]:
    """The runtime of the service, and pictures a second of everything in each round."""
    photo = photos(folder)[0]
    with (
        running(folder, settings=SETTINGS) as service,
        raw_loop(folder, processes=machine.cores(), settings=SETTINGS) as raw,
        _servers(folder, photo) as servers,
    ):
        return raw.model["runtime"], [_round(service, raw, servers, photo, plan) for _ in range(plan.rounds)]


def _round(service: Service, raw: RawLoop, servers: Sequence[Server], photo: Photo, plan: Plan) -> dict[str, float]:
    found = {RAW: raw.measure(photo, plan.seconds).images_per_s}
    found[SERVICE] = put(Load(service.port, photo.path, plan.seconds, clients=CLIENTS, prefer=True)).jobs_per_s
    for server in servers:
        with server.taking_its_turn():
            load = Load(server.port, photo.path, plan.seconds, clients=CLIENTS, target="/predict")
            found[server.name] = put(load).jobs_per_s
    return found


@contextlib.contextmanager
def _servers(folder: Path, photo: Photo) -> Iterator[list[Server]]:
    started: list[Server] = []
    try:
        for peer in PEERS:
            started.append(Server(peer, folder))
            wait_for(lambda: started[-1].answers(photo), timeout_s=120, what=f"the answer of {peer.name}")
            started[-1].halt()
        yield started
    finally:
        for server in started:
            server.end()


if __name__ == "__main__":
    sys.exit(main())
