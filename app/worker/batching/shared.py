"""A network in the network process, as a process that runs jobs uses it."""

import logging
import os
from typing import NoReturn

from app.errors import AppError
from app.worker.batching import letters
from app.worker.batching.letters import TOLD_APART, Answer, Letter, Letterbox, Lost, SharedNetwork
from app.worker.runners import Arrays

logger = logging.getLogger(__name__)

_ERRORS: dict[str, type[AppError]] = {each.__name__: each for each in TOLD_APART}
#: How this process ends whose picture the network process dies of.
_EXIT_CODE = 70


class SharedNetworkError(RuntimeError):
    """The network process could not load a network, or could not run it; its text says why."""


class SharedRunner:
    """Runs a network there. For one thread."""

    def __init__(self, box: Letterbox, network: SharedNetwork) -> None:
        """Wait until it is loaded. Raises `SharedNetworkError` if it does not load."""
        self._box = box
        self._network = network
        self._memory: int | None = None
        about = self._ask({}).about
        self.runtime, self.device, self.dtype = about["runtime"], about["device"], about["dtype"]

    def __call__(self, inputs: Arrays) -> Arrays:
        """Float32 arrays by their names in transformers, such as `logits` of shape [1, classes].

        Raises `DeviceOutOfMemory`, `OutOfMemory`, `SharedNetworkError` as the network did, and `TransientError` if it
        is not there at the moment. Ends this process, as its own network's death would, if the network process dies of
        these very inputs.
        """
        answer = self._ask(inputs)
        return letters.read(self._memory_of_ours(), answer.arrays)

    def _ask(self, inputs: Arrays) -> Answer:
        memory = self._memory_of_ours()
        try:
            answer = self._hear(memory, inputs, alone=False)
            while isinstance(answer, Lost):
                if answer.begun:
                    _end()
                answer = self._hear(memory, inputs, alone=True)
        except BaseException:
            # Whoever has the letter may still read this memory, and write into it.
            self._memory = None
            os.close(memory)
            raise
        if answer.error:
            name, text = answer.error
            raise _ERRORS.get(name, SharedNetworkError)(text if name in _ERRORS else f"{name}: {text}")
        return answer

    def _hear(self, memory: int, inputs: Arrays, *, alone: bool) -> Answer | Lost:
        letter = Letter(self._network, letters.write(memory, inputs), alone=alone)
        with letters.send(self._box.writing, letter, memory) as answers:
            return letters.hear(answers)

    def _memory_of_ours(self) -> int:
        if self._memory is None:
            self._memory = os.memfd_create("picture")
        return self._memory


def _end() -> NoReturn:
    logger.error("the network process has died of this picture alone, so this process ends as well")
    logging.shutdown()
    os._exit(_EXIT_CODE)
