"""What the network process does with letters.

take what waits in the box, up to BATCH_MAX → load what is asked for the first time → run pictures of one network and
of one shape together → answer each → take what waits by then. While a batch is run the next one gathers.
"""

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any

from app.errors import TransientError
from app.worker import manners
from app.worker.batching import letters
from app.worker.batching.batches import BatchRunner, Outcome
from app.worker.batching.letters import Answer, Received, SharedNetwork
from app.worker.batching.pulse import Pulse

logger = logging.getLogger(__name__)


def serve(box: socket.socket, networks: "Networks", *, batch_max: int) -> None:
    """Answer letters until every process that may write one has ended."""
    while True:
        try:
            taken = _take(box, batch_max)
        except EOFError:
            return
        for group in _groups(taken):
            networks.answer(group)


class Networks:
    """The networks of this process, loaded when they are first asked for."""

    def __init__(self, loader: Any, pulse: Pulse) -> None:
        """`loader` is a `NetworkLoader` of this very process."""
        self._loader = loader
        self._pulse = pulse
        self._loaded: dict[SharedNetwork, tuple[Any, BatchRunner]] = {}
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

    def _load(self, network: SharedNetwork) -> tuple[Any, BatchRunner]:
        if network not in self._loaded:
            loaded = getattr(self._loader, network.kind)(network.source)
            self._loaded[network] = loaded, BatchRunner(loaded.run, loaded.probes(), name=loaded.info.name)
            self._failed.pop(network, None)
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
    received = letters.receive(box, wait=True)
    taken = []
    with contextlib.suppress(EOFError):  # which comes again
        while received is not None:
            if received.is_wanted:
                taken.append(received)
            else:
                received.close()
            received = letters.receive(box, wait=False) if len(taken) < most else None
    return taken


def _groups(taken: Sequence[Received]) -> list[list[Received]]:
    """What can be run together, in the order in which it came."""
    groups: dict[object, list[Received]] = {}
    for received in taken:
        letter = received.letter
        together = (letter.network, tuple(letter.arrays.items()))
        groups.setdefault(received if letter.alone else together, []).append(received)
    return list(groups.values())
