"""Threads of the worker's main process that go round and round, whatever happens to Redis."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import redis

logger = logging.getLogger(__name__)

#: Between rounds that fail.
_PAUSE_S = 1


class Rounds(threading.Thread, ABC):
    """Calls `go_round` for ever, until the process ends. What fails is tried again in the next round."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._in_touch_since_s = time.monotonic()
        self._is_cut_off = False

    @property
    def in_touch_s(self) -> float:
        """For how long Redis has answered without a break. After one, others have been as silent as we were."""
        return time.monotonic() - self._in_touch_since_s

    @abstractmethod
    def go_round(self) -> None:
        """Do what is due, waiting a little if nothing is."""

    def run(self) -> None:
        """The thread's body."""
        while True:
            try:
                self.go_round()
                self._tell(None)
            except redis.RedisError as error:
                self._tell(error)
                time.sleep(_PAUSE_S)
                self._in_touch_since_s = time.monotonic()
            except Exception:  # a thread that died would be missed by nobody until it was too late: say so, and go on
                logger.exception("a round of the %s failed", self.name)
                time.sleep(_PAUSE_S)

    def _tell(self, error: redis.RedisError | None) -> None:
        """Log what has changed: an outage is told once, however long it takes."""
        if error and not self._is_cut_off:
            logger.warning("the %s cannot reach Redis: %s", self.name, error)
        elif self._is_cut_off and not error:
            logger.warning("the %s reaches Redis again", self.name)
        self._is_cut_off = error is not None


@dataclass
class Periodic:
    """Something to do every so often; what raises is due again at once."""

    every_s: float
    action: Callable[[], object]
    due_s: float = 0.0

    def run_if_due(self) -> None:
        """Do it if its time has come."""
        if time.monotonic() >= self.due_s:
            self.action()
            self.due_s = time.monotonic() + self.every_s
