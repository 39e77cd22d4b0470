"""Batches: inputs of several pictures as one, and what comes of it told apart again."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from app.worker.runners import Arrays, drift_of

logger = logging.getLogger(__name__)

#: How far a picture's answer in a batch may be from its answer alone, as `drift_of` measures it: further than rounding
#: takes it, and not as far as another picture's.
_TOLERANCE = 0.1

#: Runs a network: float32 arrays by their names in transformers.
Run = Callable[[Arrays], Arrays]
#: What came of a picture.
Outcome = Arrays | Exception


class BatchRunner:
    """Runs a network on several pictures at once, if it answers each as it does alone."""

    def __init__(
        self, run: Run, probes: Sequence[Arrays], *, name: str, fatal: tuple[type[Exception], ...] = ()
    ) -> None:
        """Try it. Raises what the network raises for a single one of the probes.

        `fatal` are errors after which this process can run nothing any more.
        """
        self._run = run
        self._fatal = fatal
        self._can_batch = self._is_sound(probes)
        if not self._can_batch:
            logger.warning("%s is given one picture at a time: it does not answer batches as it does single ones", name)

    def __call__(self, pictures: Sequence[Arrays]) -> list[Outcome]:
        """Of inputs of the same shapes the outputs, each a batch of one; or the error that is its own.

        A batch that fails is run again in halves, down to the picture that it fails of. Raises what is `fatal`.
        """
        if len(pictures) > 1 and not self._can_batch:
            return [outcome for picture in pictures for outcome in self([picture])]
        outcome = self._try(pictures)
        if not isinstance(outcome, Exception):
            return list(outcome)
        if len(pictures) == 1:
            return [outcome]
        half = len(pictures) // 2
        return [*self(pictures[:half]), *self(pictures[half:])]

    def _try(self, pictures: Sequence[Arrays]) -> Sequence[Arrays] | Exception:
        """The error without what it was raised in: that may hold all the memory that there was too little of."""
        try:
            return _split(self._run(_joined(pictures)), len(pictures))
        except self._fatal:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it raises is told to the process whose picture it is
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)

    def _is_sound(self, probes: Sequence[Arrays]) -> bool:
        """Whether it answers each of two pictures in a batch as it does alone."""
        first = probes[0]
        pair = [first, {name: np.flip(array, -1).copy() for name, array in first.items()}]
        expected = [self._run(picture) for picture in pair]
        found = self._try(pair)
        if isinstance(found, Exception):
            logger.info("it fails on batches: %s", found)
            return False
        return all(drift_of(*both) <= _TOLERANCE for both in zip(found, expected, strict=True))


def _joined(pictures: Sequence[Arrays]) -> Arrays:
    if len(pictures) == 1:
        return pictures[0]
    return {name: np.concatenate([picture[name] for picture in pictures]) for name in pictures[0]}


def _split(outputs: Arrays, pictures: int) -> Sequence[Arrays]:
    """Raises `ValueError` for outputs that are not one for each picture."""
    if pictures == 1:
        return [outputs]
    if any(array.shape[:1] != (pictures,) for array in outputs.values()):
        raise ValueError("its outputs are not one for each picture")
    return [{name: array[row : row + 1] for name, array in outputs.items()} for row in range(pictures)]
