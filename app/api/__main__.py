"""Serve the API: `python -m app.api`."""

import contextlib

import uvicorn

from app import logs
from app.api.draining import FINISH_S, DrainingServer
from app.api.protocol import BoundedProtocol
from app.config import get_settings


def main() -> None:
    """Run until stopped. On SIGTERM, requests are taken for a while, and let finish."""
    settings = get_settings()
    config = uvicorn.Config(
        "app.api.main:create_app",
        factory=True,
        host=settings.bind,
        port=settings.api_port,
        http=BoundedProtocol,
        log_config=logs.configuration(settings),
        timeout_graceful_shutdown=FINISH_S,
    )
    with contextlib.suppress(KeyboardInterrupt):
        DrainingServer(config).run()


if __name__ == "__main__":
    main()
