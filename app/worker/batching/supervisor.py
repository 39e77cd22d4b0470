"""The main process's part in micro-batching: it starts the network process, and another one whenever it ends."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping

from app.config import Settings
from app.worker.batching.letters import Letterbox
from app.worker.batching.pulse import Pulse
from app.worker.sources import SOURCES, Source

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
#: Between an end and the next start.
_PAUSE_S = 1.0


class Supervisor(threading.Thread):
    """Sees to it that there is a network process, from the start of the worker to the end of its main process.

    The network process itself ends when it is the last that holds the letterbox.
    """

    def __init__(self, settings: Settings, sources: Mapping[str, Source]) -> None:
        """Start the first one."""
        super().__init__(name="network-supervisor", daemon=True)
        self.letterbox = Letterbox.open()
        self._pulse = Pulse.start()
        self._sources = os.memfd_create("sources")
        os.write(self._sources, SOURCES.dump_json(dict(sources)))
        # Before torch is imported: its libraries read these once.
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads_per_network)}
        self._process_id = self._spawn()

    def run(self) -> None:
        """The thread's body."""
        while True:
            code = self._watch(self._process_id)
            logger.error("the network process has ended with %d, another one starts", code)
            self._start_another()

    def _start_another(self) -> None:
        while True:
            time.sleep(_PAUSE_S)
            try:
                self._process_id = self._spawn()
            except OSError as error:  # the machine is short of something
                logger.warning("the network process does not start: %s", error)
            else:
                return

    def _spawn(self) -> int:
        """Start one. Not by `subprocess`, whose pipes a worker process would inherit that is forked meanwhile."""
        self._pulse.rest()
        descriptors = (self.letterbox.reading.fileno(), self._pulse.descriptor, self._sources)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "app.worker.batching", *map(str, descriptors)],
            self._environment,
            # To itself: it is inherited then (POSIX, posix_spawn_file_actions_adddup2).
            file_actions=[(os.POSIX_SPAWN_DUP2, each, each) for each in descriptors],
        )

    def _watch(self, process_id: int) -> int:
        """Its exit code, once it has ended, by itself or because it is too long at something."""
        while True:
            ended, status = os.waitpid(process_id, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if self._pulse.is_overdue:
                logger.warning("the network process is killed: it does not come to an end")
                os.kill(process_id, signal.SIGKILL)
            time.sleep(_LOOK_EVERY_S)
