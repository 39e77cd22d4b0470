"""What the network process does with letters.

take what waits in the box, up to BATCH_MAX → load what is asked for the first time → run pictures of one network and
of one shape together → answer each → take what waits by then. While a batch is run the next one gathers.
"""

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any

from app.errors import AppError, OutOfMemory, TransientError
from app.worker import manners
from app.worker.batching import letters
from app.worker.batching.batches import BatchRunner, Outcome, Run
from app.worker.batching.letters import Answer, Received, SharedNetwork
from app.worker.batching.pulse import Pulse
from app.worker.runners import Arrays

logger = logging.getLogger(__name__)

#: One that hangs keeps all others waiting; to convert a large network takes minutes.
_LOAD_LIMIT_S = 900
_NOT_NOW = Answer(error=(TransientError.__name__, "The model is not loaded at the moment."))


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

    def __init__(
        self, loader: Any, pulse: Pulse, *, batch_limit_s: float, fatal: tuple[type[Exception], ...] = ()
    ) -> None:
        """`loader` is a `NetworkLoader` of this very process; `fatal`, errors that this process does not survive."""
        self._loader = loader
        self._pulse = pulse
        self._batch_limit_s = batch_limit_s
        self._fatal = fatal
        self._loaded: dict[SharedNetwork, tuple[Any, BatchRunner]] = {}
        #: What is told of those that did not load.
        self._failed: dict[SharedNetwork, Answer] = {}

    def answer(self, group: Sequence[Received]) -> None:
        """Answer letters of one network, and of one shape: those that ask about it, or those with a picture."""
        network, has_picture = group[0].letter.network, bool(group[0].letter.arrays)
        if has_picture or network not in self._failed:
            self._load(network)
        if network in self._failed:
            for received in group:
                received.answer(_NOT_NOW if has_picture else self._failed[network])
        elif has_picture:
            self._run(*self._loaded[network], group)
        else:
            runner = self._loaded[network][0].runner
            about = {"runtime": runner.runtime, "device": runner.device, "dtype": runner.dtype}
            for received in group:
                received.answer(Answer(about=about))

    def _load(self, network: SharedNetwork) -> None:
        if network in self._loaded:
            return
        try:
            with self._pulse.within(_LOAD_LIMIT_S):
                loaded = getattr(self._loader, network.kind)(network.source)
            probes, name = loaded.probes(), loaded.info.name
            batches = BatchRunner(self._watched(loaded.run), probes, name=name, fatal=self._fatal)
        except Exception as error:
            logger.exception("%s did not load", network.source)
            self._failed[network] = Answer(error=(type(error).__name__, str(error)))
        else:
            self._loaded[network] = loaded, batches
            self._failed.pop(network, None)
            manners.settle()

    def _watched(self, run: Run) -> Run:
        def within_its_time(inputs: Arrays) -> Arrays:
            with self._pulse.within(self._batch_limit_s):
                return run(inputs)

        return within_its_time

    def _run(self, loaded: Any, run: BatchRunner, group: Sequence[Received]) -> None:
        logger.debug("%s: a batch of %d", loaded.info.name, len(group))
        for received in group:
            received.begin()
        try:
            outcomes = run([received.read() for received in group])
        except (OSError, MemoryError) as error:  # it could not be read
            outcomes = [error] * len(group)
        for received, outcome in zip(group, outcomes, strict=True):
            received.answer(_answer_of(outcome, received.memory))


def _answer_of(outcome: Outcome, memory: int) -> Answer:
    if not isinstance(outcome, Exception):
        try:
            return Answer(arrays=letters.write(memory, outcome))
        except OSError as error:
            outcome = error
    match outcome:
        case AppError():
            return Answer(error=(type(outcome).__name__, outcome.message))
        case MemoryError():
            return Answer(error=(OutOfMemory.__name__, OutOfMemory.SENTENCE))
        case OSError():
            return Answer(error=(TransientError.__name__, "The picture could not be handed to its network."))
        case _:
            return Answer(error=(type(outcome).__name__, str(outcome)))


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
