"""The network process: `python -m app.worker.batching LETTERBOX PULSE SOURCES`, all of them file descriptors.

It ends when all processes have ended that may write a letter.
"""

import os
import signal
import socket
import sys

from app import logs
from app.config import get_settings
from app.worker import manners
from app.worker.batching.pulse import Pulse
from app.worker.batching.serving import Networks, serve
from app.worker.loading import NetworkLoader
from app.worker.sources import SOURCES

#: What all processes of a worker may be sent that is to stop: this one ends after the others.
_FOR_OTHERS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)

#: How much of an attempt's time a batch may take: who is only the neighbour of a picture that does not end must have
#: time for another try.
_BATCH_SHARE = 1 / 3
_LEAST_LIMIT_S = 10.0


def main() -> None:
    """Work until nobody is left to work for."""
    for number in _FOR_OTHERS:
        signal.signal(number, signal.SIG_IGN)
    # After that: it takes seconds.
    from app.worker.torch_runtime import DEVICE_ERROR, set_threads  # noqa: PLC0415

    settings = get_settings()
    logs.configure(settings)
    manners.give_way()
    set_threads(settings.threads_per_network)
    box, pulse, sources = map(int, sys.argv[1:])
    loader = NetworkLoader(settings, SOURCES.validate_json(os.pread(sources, os.fstat(sources).st_size, 0)))
    limit_s = max(settings.soft_time_limit * _BATCH_SHARE, _LEAST_LIMIT_S)
    networks = Networks(loader, Pulse(pulse), batch_limit_s=limit_s, fatal=(DEVICE_ERROR,))
    serve(socket.socket(fileno=box), networks, batch_max=settings.batch_max)
