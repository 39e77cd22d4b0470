"""The network process: `python -m app.worker.batching LETTERBOX PULSE`, both file descriptors.

take what waits in the box, up to BATCH_MAX → load what is asked for the first time → run pictures of one network and
of one shape together → answer each → take what waits by then. While a batch is run the next one gathers.
"""

import logging
import signal
import socket
import sys
from collections.abc import Sequence

from app import logs
from app.config import Settings, get_settings
from app.errors import TransientError
from app.worker import manners
from app.worker.batching import letters
from app.worker.batching.batches import BatchRunner, Outcome
from app.worker.batching.letters import Answer, Received, SharedNetwork
from app.worker.batching.pulse import Pulse
from app.worker.loading import NetworkLoader
from app.worker.networks import ImageNetwork
from app.worker.sources import SOURCES
from app.worker.torch_runtime import set_threads

logger = logging.getLogger(__name__)

#: What all processes of a worker may be sent that is to stop: this one ends after the others.
_FOR_OTHERS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class _Networks:
    """The networks of this process, loaded when they are first asked for."""

    def __init__(self, loader: NetworkLoader, pulse: Pulse) -> None:
        self._loader = loader
        self._pulse = pulse
        self._loaded: dict[SharedNetwork, tuple[ImageNetwork, BatchRunner]] = {}
        self._failed: dict[SharedNetwork, Exception] = {}

    def answer(self, group: Sequence[Received]) -> None:
        """Answer letters of one network, and of one shape: those that ask about it, or those with a picture."""
        network, is_question = group[0].letter.network, not group[0].letter.arrays
        if is_question and network in self._failed:
            self._tell_all(group, self._failed[network])
            return
        try:
            loaded, run = self._load(network)
        except Exception as error:
            logger.exception("%s did not load", network.source)
            self._failed[network] = error
            self._tell_all(group, error if is_question else TransientError("The model is not loaded at the moment."))
            return
        if is_question:
            runner = loaded.runner
            about = {"runtime": runner.runtime, "device": runner.device, "dtype": runner.dtype}
            for received in group:
                received.answer(Answer(about=about))
        else:
            logger.debug("%s: a batch of %d", loaded.info.name, len(group))
            with self._pulse.working():
                outcomes = run([received.read() for received in group])
            for received, outcome in zip(group, outcomes, strict=True):
                received.answer(_answer_of(outcome, received.memory))

    def _load(self, network: SharedNetwork) -> tuple[ImageNetwork, BatchRunner]:
        if network not in self._loaded:
            loaded: ImageNetwork = getattr(self._loader, network.kind)(network.source)
            self._loaded[network] = loaded, BatchRunner(loaded.run, loaded.probes(), name=loaded.info.name)
            manners.settle()
        return self._loaded[network]

    @staticmethod
    def _tell_all(group: Sequence[Received], error: Exception) -> None:
        for received in group:
            received.answer(_answer_of(error, received.memory))


def _answer_of(outcome: Outcome, memory: int) -> Answer:
    if isinstance(outcome, Exception):
        return Answer(error=(type(outcome).__name__, str(outcome)))
    return Answer(arrays=letters.write(memory, outcome))


def _take(box: socket.socket, most: int) -> list[Received]:
    """What waits, but for what nobody waits for any more. Waits for the first. Raises `EOFError`."""
    taken = [letters.receive(box, wait=True)]
    while len(taken) < most and taken[-1] is not None:
        taken.append(letters.receive(box, wait=False))
    wanted = []
    for received in filter(None, taken):
        if received.is_wanted:
            wanted.append(received)
        else:
            received.close()
    return wanted


def _groups(taken: Sequence[Received]) -> list[list[Received]]:
    """What can be run together, in the order in which it came."""
    groups: dict[object, list[Received]] = {}
    for received in taken:
        letter = received.letter
        together = (letter.network, tuple(letter.arrays.items()))
        groups.setdefault(received if letter.alone else together, []).append(received)
    return list(groups.values())


def main() -> None:
    """Work until every process that may write a letter has ended."""
    for number in _FOR_OTHERS:
        signal.signal(number, signal.SIG_IGN)
    settings: Settings = get_settings()
    logs.configure(settings)
    manners.give_way()
    set_threads(settings.threads_per_network)
    box = socket.socket(fileno=int(sys.argv[1]))
    sources = SOURCES.validate_json(sys.stdin.buffer.read())
    networks = _Networks(NetworkLoader(settings, sources), Pulse(int(sys.argv[2])))
    while True:
        try:
            taken = _take(box, settings.batch_max)
        except EOFError:
            return
        for group in _groups(taken):
            networks.answer(group)
