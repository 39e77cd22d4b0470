"""Serve the API: `python -m app.api`."""

import contextlib
import gc
import sys

import uvicorn

from app import logs
from app.api.draining import FINISH_S, DrainingServer
from app.api.main import create_app, without_detours
from app.api.processes import multiply
from app.api.protocol import BoundedProtocol
from app.config import get_settings


def main() -> None:
    """Run until stopped. On SIGTERM, requests are taken for a while, and let finish."""
    settings = get_settings()
    config = uvicorn.Config(
        without_detours(create_app(settings)),
        interface="asgi3",  # which is guessed of coroutine functions alone
        host=settings.bind,
        port=settings.api_port,
        http=BoundedProtocol,
        # Nothing here depends on who a client is, or how it came to the proxy, and requests are not logged.
        proxy_headers=False,
        access_log=False,
        log_config=logs.configuration(settings),
        timeout_graceful_shutdown=FINISH_S,
    )
    # What is there by now stays: no collection has to look through it, and processes share it.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        if settings.api_processes == 1:
            DrainingServer(config).run()
        else:
            listening = config.bind_socket()
            try:
                listening.listen(config.backlog)  # several may be bound to a port on which nobody listens
            except OSError as error:
                sys.exit(f"Port {settings.api_port} cannot be listened on: {error}")
            multiply(settings.api_processes, listening)
            DrainingServer(config).run([listening])


if __name__ == "__main__":
    main()
